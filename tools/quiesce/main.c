/* SPDX-License-Identifier: MIT */
#include <stdio.h>
int main(void)
{
	puts("quiesce");
	return 0;
}
