// Package syslet runs chains of system calls that do not come back to the
// program between the steps.
//
// A [Chain] is data: a list of steps, each with its call, its arguments (also
// "the descriptor that step 0 opened" and "as many bytes as step 1 read") and
// what happens where it fails or transfers less than asked for: stop, ignore,
// or go on elsewhere. The idea is Ingo Molnar's of 2007 (syslets and their
// atoms); what runs the chains is io_uring(7), with linked requests and direct
// descriptors. Where io_uring is absent, forbidden (kernel.io_uring_disabled,
// seccomp) or too old (Linux 5.19 is needed), a pool of threads runs the same
// chains with the same results.
//
// [Run] takes chains from an iterator and is an iterator of their completions:
//
//	for done, err := range syslet.Run(ctx, engine, jobs) { … }
//
// # Memory
//
// Each chain in flight has a buffer of the engine's, outside of Go's heap, and
// the kernel writes to nothing else. It is the consumer's to read during the
// iteration, and longer after [Completion.Take], until [Buffer.Release]. Memory
// that the kernel only reads ([Bytes]) is pinned. Run returns when the kernel
// has let go of everything.
//
// # Descriptors
//
// What a chain opens is its own and is closed at its end; on io_uring it mostly
// never has a number that another thread could inherit or mistake. Only
// [Reveal] makes a descriptor visible: close-on-exec unless [Inheritable] is
// asked for, at the lowest free number unless [NonSequential] is.
//
// # Ready chains
//
// [ReadFiles] reads many small files, [WriteFile] replaces a file durably,
// [CopyTree] copies a directory tree, and [Serve] accepts connections together
// with their first bytes.
package syslet
