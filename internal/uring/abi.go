package uring

import (
	"time"
	"unsafe"
)

// Op is an operation of a request, in the numbering of the kernel's
// include/uapi/linux/io_uring.h (enum io_uring_op).
type Op uint8

// The operations that this module uses.
const (
	OpNop            Op = 0
	OpFsync          Op = 3
	OpPollAdd        Op = 6
	OpAccept         Op = 13
	OpAsyncCancel    Op = 14
	OpLinkTimeout    Op = 15
	OpConnect        Op = 16
	OpOpenat         Op = 18
	OpClose          Op = 19
	OpStatx          Op = 21
	OpRead           Op = 22
	OpWrite          Op = 23
	OpSend           Op = 26
	OpRecv           Op = 27
	OpShutdown       Op = 34
	OpRenameat       Op = 35
	OpUnlinkat       Op = 36
	OpMkdirat        Op = 37
	OpSocket         Op = 45
	OpFixedFdInstall Op = 54
)

// Flags of a request (IOSQE_*).
const (
	FixedFile uint8 = 1 << 0 // SQE.Fd is an index into the direct descriptors
	Link      uint8 = 1 << 2 // the next request starts when this one succeeded in full
	HardLink  uint8 = 1 << 3 // the next request starts when this one ended
)

// Values of SQE.OpFlags, SQE.Ioprio and SQE.FileIndex for particular operations.
const (
	CancelAll uint32 = 1 << 0 // IORING_ASYNC_CANCEL_ALL
	CancelAny uint32 = 1 << 2 // IORING_ASYNC_CANCEL_ANY

	InstallInheritable uint32 = 1 << 0 // IORING_FIXED_FD_NO_CLOEXEC

	AcceptMultishot uint16 = 1 << 0 // IORING_ACCEPT_MULTISHOT: a completion for each connection

	FileAlloc = ^uint32(0) // IORING_FILE_INDEX_ALLOC: the kernel chooses the direct descriptor
)

// More in CQE.Flags says that the same request will have further completions
// (IORING_CQE_F_MORE).
const More uint32 = 1 << 1

// Timespec is the kernel's struct __kernel_timespec, for [OpLinkTimeout]: SQE.Addr
// points to one, SQE.Len is 1. The kernel reads it when the request is submitted.
type Timespec struct{ Sec, Nsec int64 }

// Span returns a duration as a Timespec.
func Span(d time.Duration) Timespec {
	return Timespec{Sec: int64(d / time.Second), Nsec: int64(d % time.Second)}
}

// SQE is a submission queue entry (struct io_uring_sqe). Which field means
// what for an operation is in io_uring_enter(2).
type SQE struct {
	Op          Op
	Flags       uint8
	Ioprio      uint16
	Fd          int32
	Off         uint64
	Addr        uint64
	Len         uint32
	OpFlags     uint32
	UserData    uint64
	BufIndex    uint16
	Personality uint16
	FileIndex   uint32 // direct descriptor to create or close, plus one; 0 is none
	Addr3       uint64
	_           uint64
}

// CQE is a completion queue entry (struct io_uring_cqe).
type CQE struct {
	UserData uint64
	Res      int32 // the call's result, or a negated errno
	Flags    uint32
}

// The structures of io_uring_setup(2).
type (
	sqOffsets struct {
		head, tail, ringMask, ringEntries, flags, dropped, array, _ uint32
		_                                                           uint64
	}
	cqOffsets struct {
		head, tail, ringMask, ringEntries, overflow, cqes, flags, _ uint32
		_                                                           uint64
	}
	params struct {
		sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFd uint32
		_                                                                      [3]uint32
		sq                                                                     sqOffsets
		cq                                                                     cqOffsets
	}
	geteventsArg struct {
		sigmask   uint64
		sigmaskSz uint32
		minWait   uint32
		ts        uint64
	}
	fileRange struct { // struct io_uring_file_index_range
		off, len uint32
		_        uint64
	}
	filesRegister struct { // struct io_uring_rsrc_register
		nr, flags  uint32
		_          uint64
		data, tags uint64
	}
	probeOp struct {
		op, _ uint8
		flags uint16
		_     uint32
	}
	probe struct {
		lastOp, opsLen uint8
		_              uint16
		_              [3]uint32
		ops            [256]probeOp
	}
)

// The kernel's sizes: a mismatch does not compile.
var (
	_ [64]byte  = [unsafe.Sizeof(SQE{})]byte{}
	_ [16]byte  = [unsafe.Sizeof(CQE{})]byte{}
	_ [120]byte = [unsafe.Sizeof(params{})]byte{}
	_ [24]byte  = [unsafe.Sizeof(geteventsArg{})]byte{}
	_ [32]byte  = [unsafe.Sizeof(filesRegister{})]byte{}
	_ [16]byte  = [unsafe.Sizeof(fileRange{})]byte{}
	_ [16]byte  = [unsafe.Sizeof(Timespec{})]byte{}
)

const (
	setupCQSize       = 1 << 3
	setupSubmitAll    = 1 << 7
	setupCoopTaskrun  = 1 << 8
	setupSingleIssuer = 1 << 12
	setupDeferTaskrun = 1 << 13

	featSingleMmap = 1 << 0
	featNoDrop     = 1 << 1
	featExtArg     = 1 << 8
	featLinkedFile = 1 << 12

	enterGetEvents = 1 << 0
	enterExtArg    = 1 << 3

	sqCQOverflow = 1 << 1
	sqTaskrun    = 1 << 2

	registerProbe     = 8
	registerFiles2    = 13
	registerFileRange = 25

	filesSparse = 1 << 0
	opSupported = 1 << 0

	offSQRing = 0
	offSQEs   = 0x10000000
)
