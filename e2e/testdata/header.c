/* The C example, which needs no feature macro. */
#include "../../examples/indirect-c/descriptors.c"
