package syslet

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// benchFiles is how many files BenchmarkReadFiles reads in an iteration.
const benchFiles = 100_000

// BenchmarkReadFiles reads 100,000 cached files of 1 KiB with engines of both
// back ends and with os.ReadFile in pools of several sizes, all in turn, and
// reports the ratio of the throughputs to the best pool's in the same run.
func BenchmarkReadFiles(b *testing.B) {
	paths := manyFiles(b, benchFiles, 1024)
	cpus := runtime.GOMAXPROCS(0)
	type contender struct {
		name string
		read func() (files, calls int)
	}
	var pools, rings []contender
	for _, workers := range []int{1, cpus, 2 * cpus, 8 * cpus} {
		pools = append(pools, contender{fmt.Sprintf("os.ReadFile×%d", workers), func() (int, int) {
			return readPool(b, paths, workers), 0
		}})
	}
	for _, lanes := range []int{1, cpus} {
		rings = append(rings, contender{fmt.Sprintf("ring×%d", lanes), func() (int, int) {
			return readLanes(b, paths, lanes, Config{Backend: Ring, Depth: 64, Batch: 64, Buffer: 4096, OneThread: true})
		}})
	}
	best := map[string]time.Duration{}
	calls := map[string]int{}
	for b.Loop() {
		for _, c := range slices.Concat(pools, rings) {
			start := time.Now()
			n, made := c.read()
			took := time.Since(start)
			if n != len(paths) {
				b.Fatalf("%s read %d files of %d", c.name, n, len(paths))
			}
			if old, ok := best[c.name]; !ok || took < old {
				best[c.name], calls[c.name] = took, made
			}
		}
	}
	bestPool := time.Hour
	for _, c := range pools {
		bestPool = min(bestPool, best[c.name])
	}
	for _, c := range slices.Concat(pools, rings) {
		b.ReportMetric(float64(len(paths))/best[c.name].Seconds(), c.name+"-files/s")
	}
	for _, c := range rings {
		b.ReportMetric(float64(bestPool)/float64(best[c.name]), c.name+"-ratio")
		b.ReportMetric(float64(calls[c.name])/float64(len(paths)), c.name+"-calls/file")
	}
}

// manyFiles writes n files of the given size into directories of 1000.
func manyFiles(tb testing.TB, n, size int) []string {
	tb.Helper()
	root := tb.TempDir()
	data := make([]byte, size)
	paths := make([]string, n)
	for i := range paths {
		dir := filepath.Join(root, fmt.Sprint(i/1000))
		if i%1000 == 0 {
			if err := os.Mkdir(dir, 0o700); err != nil {
				tb.Fatal(err)
			}
		}
		paths[i] = filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(paths[i], data, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return paths
}

func readPool(tb testing.TB, paths []string, workers int) int {
	var next, read atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(paths) {
					return
				}
				if _, err := os.ReadFile(paths[i]); err != nil {
					tb.Error(err)
					return
				}
				read.Add(1)
			}
		})
	}
	wg.Wait()
	return int(read.Load())
}

func readLanes(tb testing.TB, paths []string, lanes int, c Config) (files, calls int) {
	var read, made atomic.Int64
	var wg sync.WaitGroup
	for part := range slices.Chunk(paths, (len(paths)+lanes-1)/lanes) {
		wg.Go(func() {
			if c.OneThread {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
			}
			e, err := New(c)
			if err != nil {
				tb.Error(err)
				return
			}
			defer e.Close()
			for f, err := range ReadFiles(tb.Context(), e, slices.Values(part), false) {
				if err != nil || f.Err != nil {
					tb.Error(err, f.Err)
					return
				}
				read.Add(1)
			}
			made.Add(int64(e.SystemCalls()))
		})
	}
	wg.Wait()
	return int(read.Load()), int(made.Load())
}

// BenchmarkAccept accepts connections over loopback and takes their first bytes:
// with one request for all chains, with a request for each, and in a pool.
func BenchmarkAccept(b *testing.B) {
	for _, way := range []struct {
		name      string
		backend   Backend
		multishot bool
	}{{"one request", Ring, true}, {"a request each", Ring, false}, {"pool", Pool, false}} {
		for _, batch := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/batch %d", way.name, batch), func(b *testing.B) {
				e, err := New(Config{Backend: way.backend, Depth: 64, Batch: batch})
				if err != nil {
					b.Skip(err)
				}
				defer e.Close()
				l, fd := listen(b)
				var given atomic.Int64
				for range 16 {
					go func() {
						for given.Add(1) <= int64(b.N) {
							if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
								c.Write([]byte("hello"))
								io.ReadAll(c)
								c.Close()
							}
						}
					}()
				}
				chain := Chain{
					{Call: Accept, Fd: Number(fd), Multishot: way.multishot},
					{Call: Recv, Fd: Opened(0), Data: Own(0, 64)},
				}
				runtime.LockOSThread() // on a ring, all of the server's work is this thread's
				defer runtime.UnlockOSThread()
				calls := e.SystemCalls()
				var before, after unix.Rusage
				unix.Getrusage(unix.RUSAGE_THREAD, &before)
				b.ResetTimer()
				for c, err := range Run(b.Context(), e, times(b.N, chain)) {
					if err != nil || c.Err() != nil {
						b.Fatal(err, c.Err())
					}
				}
				b.StopTimer()
				unix.Getrusage(unix.RUSAGE_THREAD, &after)
				spent := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
				b.ReportMetric(float64(e.SystemCalls()-calls)/float64(b.N), "calls/connection")
				if way.backend == Ring {
					b.ReportMetric(float64(spent)/float64(b.N), "thread-ns/connection")
				}
			})
		}
	}
}
