/* The example of a program that copes with every kernel. */
#include "../../examples/testability/testability.c"
