package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// writeProject writes a C project of n files, each of about 200 lines, and
// its Makefile into dir.
func writeProject(dir string, n int) error {
	files := map[string]string{"project.h": projectHeader}
	var objects, calls strings.Builder
	for i := range n {
		files[fmt.Sprintf("part%02d.c", i)] = projectPart(i)
		fmt.Fprintf(&objects, " part%02d.o", i)
		fmt.Fprintf(&calls, "\ttotal += part%02d_run(argc);\n", i)
	}
	var declared strings.Builder
	for i := range n {
		fmt.Fprintf(&declared, "long part%02d_run(long);\n", i)
	}
	files["main.c"] = "#include \"project.h\"\n" + declared.String() +
		"int main(int argc, char **argv)\n{\n\tlong total = 0;\n\t(void)argv;\n" + calls.String() +
		"\tprintf(\"%ld\\n\", total);\n\treturn 0;\n}\n"
	files["Makefile"] = "CFLAGS = -O2 -Wall\nproject: main.o" + objects.String() +
		"\n\t$(CC) -o $@ $^\nmain.o" + objects.String() + ": project.h\n"
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

const projectHeader = `#ifndef PROJECT_H
#define PROJECT_H
#include <ctype.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>
struct record { uint64_t key; long weight; char name[32]; struct record *left, *right; };
#endif
`

// projectPart is the text of one file: a few functions repeated with different constants.
func projectPart(i int) string {
	var b strings.Builder
	b.WriteString("#include \"project.h\"\n\n")
	for f := range 6 {
		fmt.Fprintf(&b, `static struct record *insert_%[1]d(struct record *at, struct record *new)
{
	if (!at)
		return new;
	if (new->key %% %[2]d < at->key %% %[2]d)
		at->left = insert_%[1]d(at->left, new);
	else
		at->right = insert_%[1]d(at->right, new);
	return at;
}

static long scan_%[1]d(const char *text)
{
	long sum = %[2]d;
	for (; *text; text++) {
		switch (*text) {
		case 'a' ... 'f': sum = sum * 31 + *text; break;
		case '0' ... '9': sum ^= (sum << 5) + (*text - '0'); break;
		default: sum += isspace((unsigned char)*text) ? 1 : %[1]d;
		}
	}
	return sum;
}

`, f, 17+i*6+f)
	}
	fmt.Fprintf(&b, "long part%02d_run(long seed)\n{\n\tlong sum = 0;\n\tstatic struct record pool[64];\n\tstruct record *root = NULL;\n", i)
	for f := range 6 {
		fmt.Fprintf(&b, "\tfor (int i = 0; i < 64; i++) {\n\t\tsnprintf(pool[i].name, sizeof pool[i].name, \"%%ld-%%d\", seed, i);\n"+
			"\t\tpool[i].key = scan_%[1]d(pool[i].name);\n\t\tpool[i].left = pool[i].right = NULL;\n\t\troot = insert_%[1]d(i ? root : NULL, &pool[i]);\n\t}\n"+
			"\tsum += root->weight + root->key;\n", f)
	}
	b.WriteString("\treturn sum;\n}\n")
	return b.String()
}
