/* Does nothing: to see whether programs like it can be made and run. */
#include <stdio.h>

int main(void)
{
	return puts("") < 0;
}
