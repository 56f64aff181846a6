// Slurp reads every file of a directory tree with chains of system calls on
// io_uring, and compares that with os.ReadFile in a pool of goroutines.
//
//	go run ./examples/slurp [-sums] [-rounds 3] [-backend auto|io_uring|pool] DIR
//
// It prints, for both ways, files and bytes a second and how many system calls
// each file took. With -sums it prints each file's CRC-32C and path as well.
package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/seed-055cd0c8/indirect/syslet"
	"golang.org/x/sys/unix"
)

func main() {
	sums := flag.Bool("sums", false, "print each file's CRC-32C and path")
	rounds := flag.Int("rounds", 3, "how often to read everything in each way; the best round counts")
	name := flag.String("backend", "auto", "auto, io_uring or pool")
	flag.Parse()
	backend, known := map[string]syslet.Backend{"auto": syslet.Auto, "io_uring": syslet.Ring, "pool": syslet.Pool}[*name]
	if flag.NArg() != 1 || *rounds < 1 || !known {
		fmt.Fprintln(os.Stderr, "usage: slurp [-sums] [-rounds N] [-backend auto|io_uring|pool] DIR")
		os.Exit(2)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, flag.Arg(0), backend, *rounds, *sums, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "slurp:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string, backend syslet.Backend, rounds int, sums bool, out io.Writer, screen *os.File) error {
	paths, err := list(dir)
	if err != nil {
		return err
	}
	if len(paths) == 0 {
		return fmt.Errorf("no file below %s", dir)
	}
	var chains, pool round
	for i := range rounds {
		show := newProgress(screen, fmt.Sprintf("round %d of %d", i+1, rounds), 2*len(paths))
		b, err := measure(func(r *round) error { return readPool(ctx, paths, r, show) }, len(paths))
		if err != nil {
			return err
		}
		a, err := measure(func(r *round) error { return readChains(ctx, paths, backend, r, show) }, len(paths))
		if err != nil {
			return err
		}
		show.end()
		if d := slices.Compare(a.sums, b.sums); d != 0 {
			return errors.New("the two ways read different contents: the tree is changing")
		}
		chains, pool = better(chains, a), better(pool, b)
	}
	w := bufio.NewWriter(out)
	if sums {
		for i, path := range paths {
			if chains.ok[i] {
				fmt.Fprintf(w, "%08x  %s\n", chains.sums[i], path)
			}
		}
	}
	fmt.Fprintf(w, "%d files, %.1f MB, %d unreadable\n", len(paths), float64(chains.bytes)/1e6, chains.failed)
	chains.print(w, "syslet, "+chains.backend, len(paths))
	pool.print(w, "os.ReadFile", len(paths))
	fmt.Fprintf(w, "syslet is %.2f times as fast\n", pool.took.Seconds()/chains.took.Seconds())
	return w.Flush()
}

// list returns the regular files below dir.
func list(dir string) ([]string, error) {
	var paths []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil && path == dir {
			return err
		}
		if err == nil && d.Type().IsRegular() {
			paths = append(paths, path)
		}
		return nil // what cannot be listed is left out
	})
	return paths, err
}

// round is everything read once in one way.
type round struct {
	backend string
	took    time.Duration
	sums    []uint32 // CRC-32C by path
	ok      []bool
	bytes   int64
	failed  int64
	calls   uint64
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// note records a file. Each has a place of its own: there is nothing to lock.
func (r *round) note(i int, data []byte, err error) {
	if err != nil {
		atomic.AddInt64(&r.failed, 1)
		return
	}
	r.sums[i], r.ok[i] = crc32.Checksum(data, castagnoli), true
	atomic.AddInt64(&r.bytes, int64(len(data)))
}

func measure(read func(*round) error, files int) (round, error) {
	r := round{sums: make([]uint32, files), ok: make([]bool, files)}
	start := time.Now()
	err := read(&r)
	r.took = time.Since(start)
	return r, err
}

func better(a, b round) round {
	if a.took == 0 || b.took < a.took {
		return b
	}
	return a
}

func (r *round) print(w io.Writer, name string, files int) {
	fmt.Fprintf(w, "%-18s %9.0f files/s %8.1f MB/s %8.3f system calls a file\n", name,
		float64(files)/r.took.Seconds(), float64(r.bytes)/1e6/r.took.Seconds(), float64(r.calls)/float64(files))
}

// readChains reads with an engine for each CPU.
func readChains(ctx context.Context, paths []string, backend syslet.Backend, r *round, show *progress) error {
	lanes := runtime.GOMAXPROCS(0)
	var wg sync.WaitGroup
	failures := make([]error, lanes)
	names := make([]string, lanes)
	for lane := range lanes {
		wg.Go(func() {
			names[lane], failures[lane] = readLane(ctx, paths, lane, lanes, backend, r, show)
		})
	}
	wg.Wait()
	r.backend = names[0]
	return errors.Join(failures...)
}

// readLane reads every lanes-th batch of the paths on a thread of its own.
func readLane(ctx context.Context, paths []string, lane, lanes int, backend syslet.Backend, r *round, show *progress) (string, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	e, err := syslet.New(syslet.Config{Backend: backend, Batch: 64, Buffer: buffer, OneThread: true})
	if err != nil {
		return "", err
	}
	defer e.Close()
	var index map[string]int // completions come in any order
	large := uint64(0)
	const batch = 4096
	for start := lane * batch; start < len(paths); start += lanes * batch {
		part := paths[start:min(start+batch, len(paths))]
		index = make(map[string]int, len(part))
		for i, path := range part {
			index[path] = start + i
		}
		for f, err := range syslet.ReadFiles(ctx, e, slices.Values(part), false) {
			if err != nil {
				return "", err
			}
			r.note(index[f.Path], f.Data, f.Err)
			if len(f.Data) >= buffer {
				large++ // ReadFiles has used os.ReadFile
			}
			show.add(1)
		}
	}
	atomic.AddUint64(&r.calls, e.SystemCalls()+large*readFileCalls)
	used, _ := e.Backend()
	return used.String(), nil
}

// buffer is larger than nearly all files of a source tree.
const buffer = 64 << 10

// readFileCalls is what strace counts for os.ReadFile of a file in Go 1.26:
// openat, four times fcntl, epoll_ctl, fstat, read, read of the end, close.
const readFileCalls = 10

// readPool reads with os.ReadFile in eight times as many goroutines as there
// are CPUs: on most machines no other number is faster.
func readPool(ctx context.Context, paths []string, r *round, show *progress) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 8 * runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(paths) {
					return
				}
				data, err := os.ReadFile(paths[i])
				r.note(i, data, err)
				show.add(1)
			}
		})
	}
	wg.Wait()
	r.calls = uint64(len(paths)) * readFileCalls
	return context.Cause(ctx)
}

// progress draws a line on a terminal, at most ten times a second.
type progress struct {
	screen *os.File // nil where it is no terminal
	title  string
	total  int
	done   atomic.Int64
	drawn  atomic.Int64 // Unix time in milliseconds
}

func newProgress(screen *os.File, title string, total int) *progress {
	p := &progress{title: title, total: total}
	if _, err := unix.IoctlGetTermios(int(screen.Fd()), unix.TCGETS); err == nil {
		p.screen = screen
	}
	return p
}

func (p *progress) add(n int64) {
	done := p.done.Add(n)
	if p.screen == nil || done%256 != 0 && done != int64(p.total) {
		return
	}
	now, last := time.Now().UnixMilli(), p.drawn.Load()
	if now-last >= 100 && p.drawn.CompareAndSwap(last, now) {
		const width = 30
		full := int(done) * width / cmp.Or(p.total, 1)
		fmt.Fprintf(p.screen, "\r%s [%-*s] %d", p.title, width, "##############################"[:min(full, width)], done)
	}
}

func (p *progress) end() {
	if p.screen != nil {
		fmt.Fprint(p.screen, "\r\x1b[K")
	}
}
