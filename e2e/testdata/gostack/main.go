// Gostack makes calls from many goroutines at every depth of their small
// stacks, which have no guard page below them but other stacks.
package main

import (
	"fmt"
	"os"
	"sync"
	"syscall"
)

// descend makes a call at this depth and below, and checks what it left on the stack.
func descend(depth int, mark uint64) (bad int) {
	local := [4]uint64{mark, ^mark, mark, ^mark}
	fd, err := syscall.Open("/dev/null", syscall.O_RDONLY, 0)
	if err != nil {
		return 1
	}
	if depth > 0 {
		bad = descend(depth-1, mark+1)
	}
	if local != [4]uint64{mark, ^mark, mark, ^mark} {
		bad++
	}
	if syscall.Close(fd) != nil {
		bad++
	}
	return bad
}

func main() {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		total int
	)
	for round := range 8 {
		for depth := range 60 {
			wg.Go(func() {
				bad := descend(depth, uint64(round)<<32)
				mu.Lock()
				total += bad
				mu.Unlock()
			})
		}
		wg.Wait()
	}
	if total > 0 {
		fmt.Fprintln(os.Stderr, total, "errors")
		os.Exit(1)
	}
}
