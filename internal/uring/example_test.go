package uring_test

import (
	"fmt"
	"log"

	"github.com/seed-055cd0c8/indirect/internal/uring"
)

func Example() {
	r, err := uring.New(uring.Config{Submissions: 4, Completions: 8})
	if err != nil {
		log.Print(err) // io_uring is absent, forbidden or too old
		return
	}
	defer r.Close()
	s := r.Next()
	s.Op, s.UserData = uring.OpNop, 7
	if err := r.Enter(1, 0); err != nil {
		log.Print(err)
		return
	}
	if c, ok := r.Reap(); ok {
		fmt.Println(c.UserData, c.Res)
	}
}
