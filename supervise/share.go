package supervise

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/internal/tracee"
)

// share keeps a thread that waits for its answer, and the worker that is about
// to hold it for its program image's first call, on one processor until the
// thread has stopped. The two take turns: left alone, the scheduler wakes each
// on a processor that idles, which takes several times longer than to switch to
// it, and leaves the thread with cold caches. It must end before the thread
// runs, or threads and processes that it creates inherit the one processor.
//
// It is in the ledger, so that a successor can give the thread its processors
// back.
type share struct {
	tid  atomic.Int32 // the thread, or 0
	cpu  int32        // that it is kept on
	cpus unix.CPUSet  // on which it may run
}

// begin keeps the thread tid on the processor of the calling worker, as long
// as that is one of its own. Failure costs only time.
func (s *share) begin(tid int) {
	if s.tid.Load() != 0 {
		return
	}
	cpu, err := tracee.Processor()
	if err != nil {
		return
	}
	if s.cpus, err = tracee.Processors(tid); err != nil || !s.cpus.IsSet(cpu) || s.cpus.Count() == 1 {
		return
	}
	s.cpu = int32(cpu)
	s.tid.Store(int32(tid))
	_ = tracee.SetProcessors(tid, s.one())
	_ = tracee.SetProcessors(0, s.one())
}

// end lets both run where they might before; ours are the worker's processors.
func (s *share) end(ours unix.CPUSet) {
	if tid := int(s.tid.Load()); tid != 0 {
		if now, err := tracee.Processors(tid); err == nil && now == s.one() { // nobody else has changed it
			_ = tracee.RestoreProcessors(tid, s.cpus)
		}
		_ = tracee.SetProcessors(0, ours)
		s.tid.Store(0)
	}
}

func (s *share) one() (set unix.CPUSet) {
	set.Set(int(s.cpu))
	return set
}
