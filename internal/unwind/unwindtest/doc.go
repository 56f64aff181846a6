// Package unwindtest lets tests compare stacks with those that gdb shows.
package unwindtest
