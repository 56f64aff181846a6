package syslet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// File is a file that was read.
type File struct {
	Path string
	Data []byte        // valid until the next iteration
	Stat *unix.Statx_t // only where ReadFiles was asked for it; likewise
	Err  error         // a *StepError, or what reading a large file ended with
	done Completion[string]
	big  bool
}

// Take keeps the file's memory: Data stays valid until the buffer is released.
// It returns nil for a file that was larger than the engine's buffers, whose
// Data is ordinary memory.
func (f File) Take() *Buffer {
	if f.big || f.done.f == nil {
		return nil
	}
	return f.done.Take()
}

// ReadFiles reads the regular files of paths, in any order. (Opening a FIFO
// waits for its other end, and in a pool nothing ends that wait.) The engine's buffers should
// be larger than most files: one that fills its buffer is read once more, whole,
// with [os.ReadFile].
//
// With withStat each file comes with what statx(2) says of its path. The kernel
// hands every statx of a ring to a thread of its own (io_uring/statx.c), which
// costs several times the rest: ask only where the size of Data is not enough.
//
// The error is that of [Run].
func ReadFiles(ctx context.Context, e *Engine, paths iter.Seq[string], withStat bool) iter.Seq2[File, error] {
	buffer := e.config.Buffer
	chain := Chain{
		{Call: Open, Flags: unix.O_RDONLY | unix.O_NOCTTY},
		{Call: Read, Fd: Opened(0), Data: Own(0, buffer), OnError: Ignore, OnShort: Ignore, OnEnd: Ignore},
		{Call: Close, Fd: Opened(0)},
	}
	const read = 1
	stat := len(chain)
	if withStat {
		chain = append(chain, Step{Call: Stat, Mode: unix.STATX_BASIC_STATS | unix.STATX_BTIME})
	}
	jobs := func(yield func(string, Chain) bool) {
		for path := range paths {
			chain[0].Path = path
			if withStat {
				chain[stat].Path = path
			}
			if !yield(path, chain) {
				return
			}
		}
	}
	return func(yield func(File, error) bool) {
		for c, err := range Run(ctx, e, jobs) {
			if err != nil {
				yield(File{}, err)
				return
			}
			f := File{Path: c.Value, done: c, Err: c.Err()}
			if withStat {
				f.Stat = c.Stat(stat)
			}
			n, err := c.N(read)
			switch {
			case f.Err != nil:
			case err != nil:
				f.Err = &StepError{Step: read, Call: Read, Path: c.Value, Errno: errnoOf(err)}
			case n == buffer:
				f.big = true
				f.Data, f.Err = os.ReadFile(c.Value)
			default:
				f.Data = c.Own()[:n]
			}
			if !yield(f, nil) {
				return
			}
		}
	}
}

// NewFile is a file to write.
type NewFile struct {
	Path string
	Data []byte // must not change until it was reported
	Mode fs.FileMode
}

// WriteFiles replaces files durably: each is written under a name of its own in
// the same directory, synced, renamed over the old file, and the directory is
// synced. After a crash there is either the old file or the whole new one, and
// the new one once it was reported. An existing file loses its owner, links and
// attributes: it is another file.
//
// The error of a pair is that of the file; it is that of [Run] where the file
// has no Path.
func WriteFiles(ctx context.Context, e *Engine, files iter.Seq[NewFile]) iter.Seq2[NewFile, error] {
	type job struct {
		file NewFile
		temp string
	}
	const (
		open = iota
		write
		sync
		closeFile
		rename
		openDir
		syncDir
		closeDir
		jumpEnd
		unlink
		end
	)
	undo := Goto(unlink)
	chain := Chain{
		open:      {Call: Open, Flags: unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW},
		write:     {Call: Write, Fd: Opened(open), OnError: undo, OnShort: undo, OnEnd: undo},
		sync:      {Call: Fsync, Fd: Opened(open), OnError: undo},
		closeFile: {Call: Close, Fd: Opened(open), OnError: undo},
		rename:    {Call: Rename, OnError: undo},
		openDir:   {Call: Open, Flags: unix.O_RDONLY | unix.O_DIRECTORY},
		syncDir:   {Call: Fsync, Fd: Opened(openDir)},
		closeDir:  {Call: Close, Fd: Opened(openDir)},
		jumpEnd:   {Call: Jump, Flags: end},
		unlink:    {Call: Unlink, OnError: Ignore},
	}
	jobs := func(yield func(job, Chain) bool) {
		for f := range files {
			dir, base := filepath.Split(f.Path)
			if dir == "" {
				dir = "."
			}
			temp := filepath.Join(dir, "."+base[:min(len(base), 200)]+"."+strconv.FormatUint(rand.Uint64(), 36))
			chain[open].Path, chain[open].Mode = temp, uint32(f.Mode.Perm())
			chain[write].Data = Bytes(f.Data)
			if len(f.Data) == 0 {
				chain[write].Data = Own(0, 0)
			}
			chain[rename].Path, chain[rename].Path2 = temp, f.Path
			chain[openDir].Path = dir
			chain[unlink].Path = temp
			if !yield(job{f, temp}, chain) {
				return
			}
		}
	}
	return func(yield func(NewFile, error) bool) {
		for c, err := range Run(ctx, e, jobs) {
			if err != nil {
				yield(NewFile{}, err)
				return
			}
			err := c.Err()
			if err == nil {
				err = firstError(c, open, rename+1)
			}
			// A cancelled chain does not come to its unlink. After the rename
			// there is nothing of that name.
			if err != nil && !c.Ran(unlink) && c.Ran(open) {
				if n, renamed := c.N(rename); renamed != nil || n != 0 {
					os.Remove(c.Value.temp)
				}
			}
			if err != nil {
				err = fmt.Errorf("write %s: %w", c.Value.file.Path, err)
			}
			if !yield(c.Value.file, err) {
				return
			}
		}
	}
}

// firstError returns the error of the first of steps [from, to) that failed,
// for chains that go on to clean up.
func firstError[T any](c Completion[T], from, to int) error {
	for i := from; i < to; i++ {
		s := &c.f.chain[i]
		if n, err := c.N(i); err != nil {
			return &StepError{Step: i, Call: s.Call, Path: s.Path, Errno: errnoOf(err)}
		} else if s.Call == Write && n < len(c.f.data(i)) {
			return &StepError{Step: i, Call: s.Call, Short: n}
		}
	}
	return nil
}

// WriteFile is [WriteFiles] for a single file.
func WriteFile(ctx context.Context, e *Engine, path string, data []byte, mode fs.FileMode) error {
	one := func(yield func(NewFile) bool) { yield(NewFile{Path: path, Data: data, Mode: mode}) }
	var result error
	for _, err := range WriteFiles(ctx, e, one) {
		result = errors.Join(result, err)
	}
	return result
}

// Copied is a file, directory or symbolic link that was copied.
type Copied struct {
	Path string // relative to both trees
	Mode fs.FileMode
	Err  error
}

// CopyTree copies the tree at from to the directory to, which must not exist
// yet: directories, regular files and symbolic links, with their permission
// bits as far as the umask lets them. Anything else is reported with
// [errors.ErrUnsupported]. Nothing existing is overwritten, and no symbolic
// link below from is followed. What could not be copied is reported, and the
// rest goes on.
//
// The error is that of [Run], or says that to could not be made.
func CopyTree(ctx context.Context, e *Engine, from, to string) iter.Seq2[Copied, error] {
	const (
		source = iota
		target
		read
		write
		again
		end
	)
	chain := Chain{
		source: {Call: Open, Flags: unix.O_RDONLY | unix.O_NOFOLLOW},
		target: {Call: Open, Flags: unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW},
		read:   {Call: Read, Fd: Opened(source), Data: Own(0, e.config.Buffer), Off: -1, OnShort: Ignore, OnEnd: Goto(end)},
		write:  {Call: Write, Fd: Opened(target), Data: Own(0, e.config.Buffer).UpTo(read), Off: -1},
		again:  {Call: Jump, Flags: read},
	}
	return func(yield func(Copied, error) bool) {
		if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
			yield(Copied{}, fmt.Errorf("copy %s to %s: %w", from, to, fs.ErrExist))
			return
		}
		left := false
		report := func(c Copied, err error) bool {
			left = left || !yield(c, err)
			return !left
		}
		// Directories are writable while they are filled; their own bits come last.
		var dirs []Copied
		jobs := func(yield func(Copied, Chain) bool) {
			filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
				rel, relErr := filepath.Rel(from, path)
				c := Copied{Path: rel, Err: errors.Join(err, relErr)}
				var info fs.FileInfo
				if c.Err == nil {
					info, c.Err = d.Info()
				}
				if c.Err == nil {
					c.Mode = info.Mode()
				}
				switch {
				case c.Err != nil:
				case d.IsDir():
					if inside(path, to) { // made by ourselves: going on would never end
						return fs.SkipDir
					}
					if c.Err = os.Mkdir(filepath.Join(to, rel), c.Mode.Perm()|0o700); c.Err != nil {
						break
					}
					dirs = append(dirs, c)
					return nil
				case d.Type().IsRegular():
					chain[source].Path, chain[target].Path = path, filepath.Join(to, rel)
					chain[target].Mode = uint32(c.Mode.Perm())
					if !yield(c, chain) {
						return fs.SkipAll
					}
					return nil
				case d.Type()&fs.ModeSymlink != 0:
					var dest string
					if dest, c.Err = os.Readlink(path); c.Err == nil {
						c.Err = os.Symlink(dest, filepath.Join(to, rel))
					}
				default:
					c.Err = fmt.Errorf("copy %s (%s): %w", path, d.Type(), errors.ErrUnsupported)
				}
				if !report(c, nil) {
					return fs.SkipAll
				}
				if d != nil && d.IsDir() {
					return fs.SkipDir
				}
				return nil
			})
		}
		for c, err := range Run(ctx, e, jobs) {
			if err != nil {
				report(Copied{}, err)
				return
			}
			c.Value.Err = c.Err()
			if left || !report(c.Value, nil) {
				return
			}
		}
		for i := len(dirs) - 1; i >= 0 && !left; i-- {
			dirs[i].Err = dirs[i].close(filepath.Join(to, dirs[i].Path))
			report(dirs[i], nil)
		}
	}
}

// inside tells whether path is the directory dir.
func inside(path, dir string) bool {
	a, errA := os.Stat(path)
	b, errB := os.Stat(dir)
	return errA == nil && errB == nil && os.SameFile(a, b)
}

// close takes from a filled directory the owner's bits that only we needed.
func (c Copied) close(path string) error {
	extra := 0o700 &^ c.Mode.Perm()
	if extra == 0 {
		return nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return os.Chmod(path, info.Mode().Perm()&^extra)
}

// Conn is a connection that was accepted and has sent something.
type Conn struct {
	FD    int    // the caller's to close; -1 where Err is not nil
	First []byte // what came first, at most the engine's buffer; valid until the next iteration
	Err   error  // a *StepError: the accept failed, or the connection did before it sent anything
}

// Serve accepts connections from a listening socket, such as the descriptor of
// a [net.TCPListener], and yields each with the first bytes that it sent. There
// are as many as the engine's depth waiting, whether for a connection or for its
// first bytes: a silent peer occupies a place. flags are those of [Reveal]; the
// descriptor is in blocking mode. Connections that were accepted and not yielded
// when the loop ends are closed.
//
// With a Config.Batch above 1, one request accepts for all ([Step.Multishot]),
// ahead of the chains by at most some times the depth: a burst of connections
// does not wait for chains. Without it each accept is linked to the receive that
// follows, which takes fewer calls where connections come one at a time.
//
// A connection that broke or closed before it sent anything is yielded with Err
// and goes on to the next. The loop ends with ctx, or when the consumer leaves
// it.
func Serve(ctx context.Context, e *Engine, listener, flags int) iter.Seq2[Conn, error] {
	const (
		accept = iota
		recv
		reveal
	)
	chain := Chain{
		accept: {Call: Accept, Fd: Number(listener), Multishot: e.config.Batch > 1},
		recv:   {Call: Recv, Fd: Opened(accept), Data: Own(0, e.config.Buffer)},
		reveal: {Call: Reveal, Fd: Opened(accept), Flags: flags},
	}
	jobs := func(yield func(struct{}, Chain) bool) {
		for yield(struct{}{}, chain) {
		}
	}
	return func(yield func(Conn, error) bool) {
		for c, err := range Run(ctx, e, jobs) {
			if err != nil {
				yield(Conn{FD: -1}, err)
				return
			}
			conn := Conn{FD: -1, Err: c.Err()}
			if conn.Err == nil {
				conn.FD, _ = c.N(reveal)
				n, _ := c.N(recv)
				conn.First = c.Own()[:n]
			} else if ctx.Err() != nil && errors.Is(conn.Err, unix.ECANCELED) {
				continue // one of those that waited: no connection is lost
			}
			if !yield(conn, nil) {
				return
			}
		}
	}
}
