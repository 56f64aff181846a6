#include "textflag.h"

// The code below never runs in this process: it is copied into the processes
// that we serve. It is position independent, uses no stack but its own frame
// below the red zone, and changes no register that a system call preserves.
//
// layout_test.go checks the offsets against the Go structures.

// Image layout, from a base that is a multiple of 64 KiB.
#define INDEX 0x1c00 // one byte for each system call number: 0, or 1 + its first row
#define NUMBERS 512
#define HEADER 0x1e00
#define ROWS 0x1e40
#define ROWSHIFT 6
#define ENTRY 0x1000
#define OWNTHUNK 0x2b40 // leads back into the stub
#define FAMILY 0x2bc0
#define SETS 0x4800 // for each set of asked properties: an index, and rows
#define SETSIZE 0x1700
#define HEADER_FLAGS (HEADER+12)
#define OWNFILTERS 4
#define HEADER_SETS (HEADER+20) // which of them are there
#define HEADER_ARENA (HEADER+24) // where syslets are kept, or 0
#define KINDS 0x4600 // one byte for each system call number: may it block?
#define TRIEDTHUNK 0x2b60 // leads to what follows a non-blocking attempt
#define HELPERTHUNK 0x2b80 // leads to what follows a helper's call
#define CARRIEDTHUNK 0x2ba0 // leads back into a program of another ABI
#define UNCHANGED 0xff // in their index: a call that needs no row
#define LEFT 0xfe // a call for the supervisor

// struct row
#define ROW_NEXT 0
#define ROW_GIVES 1
#define ROW_POINTER 2
#define ROW_FLAGSARG 3
#define ROW_AFTER 4
#define ROW_WORD 5
#define ROW_THEIRS 6
#define ROW_OURS 7
#define ROW_NR 8
#define ROW_ASKED 12
#define ROW_FROM 16
#define ROW_BITS 24
#define ROW_COND0 48
#define ROW_COND1 56

// row.After
#define AFTER_CLOEXEC 1
#define AFTER_NONBLOCK 2
#define AFTER_NONSEQ 4
#define KEEP_CLOEXEC 8
#define ASKED_ALWAYS 16
#define AFTER_ERRNO 32
#define ANY_NUMBER 64

// row.Gives
#define GIVES_RET 0
#define GIVES_PAIR 1
#define GIVES_CONTROL 2
#define GIVES_CONTROLS 3

// struct family: an added call that is a variant of another one
#define FAMILY_FROM 0
#define FAMILY_FLAGSARG 6
#define FAMILY_GIVES 7
#define FAMILY_NR 8
#define FAMILY_REFUSES 12
#define FAMILYSHIFT 5
#define FAMILY_MASKARG 16

// The added calls' numbers (fdcall.AddedCalls), from the first.
#define ADDED 2007
#define ADDEDS 8
#define FORMER_INDIRECT 286
#define FORMER_WAIT 287
#define NROPEN_SHIFT 20

// struct thunk
#define THUNK_PLAIN 5
#define THUNK_RETURN 24

// The frame, at SP. Unwinders: the program's stack pointer is SP+FRAME and the
// address it continues at is in the thunk that F_THUNK points to. It is small
// because stacks may be: Go's leave some 400 bytes.
#define FRAME 208 // 128 of them are the program's red zone
#define F_ARGS 0
#define F_NR 48
#define F_THUNK 56
#define F_RBX 64
#define F_ZERO 72
// A call that runs another one has a frame of its own for that one, directly
// below: NESTED bytes, without a red zone between.
#define NESTED 80

// Our own red zone, for what few calls need.
#define F_RBP -8
#define F_R12 -16
#define F_R13 -24
#define F_R14 -32
#define F_R15 -40
#define F_RESULT -48
#define F_SCRATCH -64 // 16 bytes
#define F_LEFT -72 // messages that remain after this one
#define F_END -80 // of its control messages
#define F_HEADER -88 // the next of them
#define F_MESSAGE -96
// Or, for a pair that is not on the stack:
#define F_PID -72
#define F_PAIR -128 // two int
#define F_PAIRLOCAL -120 // struct iovec
#define F_PAIRREMOTE -104 // struct iovec
#define NEAR 1048576
// While the flags are a word in memory, before the registers are saved:
#define F_LOCAL -24 // struct iovec
#define F_REMOTE -40 // struct iovec
#define F_HOW -128 // 64 bytes

// While a call of indirect(2) is copied:
#define F_REGS -128 // 56 bytes
#define F_PARAMS -8
#define F_COPYLOCAL -64 // struct iovec
#define F_COPYREMOTE -48 // struct iovec
// While a syslet is handed over:
#define F_MASK -8
// While paccept waits:
#define F_POLLFD -16
#define F_OPTION -24
#define F_OPTIONLEN -32

// A thread of a program that speaks another ABI brings its syslet along in the
// frame, where the red zone would be, and its registers above the frame: they
// are struct user_regs_struct up to ss, with the signal mask for orig_ax.
#define F_CALL 80 // the call and struct syslet_args, as from S_REGS on
#define F_MANNER 168
#define C_R15 0
#define C_R14 8
#define C_R13 16
#define C_R12 24
#define C_BP 32
#define C_BX 40
#define C_R11 48
#define C_R10 56
#define C_R9 64
#define C_R8 72
#define C_AX 80
#define C_CX 88
#define C_DX 96
#define C_SI 104
#define C_DI 112
#define C_MASK 120
#define C_IP 128 // and from here on what IRETQ takes
#define C_CS 136
#define C_FLAGS 144
#define C_SP 152
#define C_SS 160
#define C_WORDS 21
// How its call is to be made.
#define CARRIED 1
#define I386CALL 2 // by int $0x80
#define STANDARD 4 // a result of 0, 1 or 2 is a standard stream

// An arena has a lock and room for syslets, each of them in a slot that is also
// its helper's stack. A bit for each of the first slots says that a helper waits
// there for its next call.
#define ARENASIZE 0x400000
#define ARENA_LOCK 4
#define ARENA_SPARES 8
#define SPARES 64
#define IDLE 10000000 // nanoseconds that a spare helper waits before it ends
#define SLOTSIZE 1024
#define SLOTSHIFT 10
#define S_TAKEN 0
#define S_REGS 8 // the call: its number and six arguments
#define S_RING 64 // struct syslet_args
#define S_DATA 72
#define S_IP 80
#define S_SP 88
#define S_MASK 144
#define S_LOCAL 152 // struct iovec
#define S_REMOTE 168 // struct iovec
#define S_STATUS 184 // struct syslet_completion
#define S_STATUSDATA 192
#define S_HEAD 200 // struct syslet_ring, without its completions
#define S_ELEMENTS 208
#define S_IOVEC 216
#define S_PID 232
#define S_ALL 240
#define S_ARENA 248
#define S_RESULT 256
#define S_RANGE 264 // struct cachestat_range
#define S_CACHED 280 // struct cachestat: its first word counts pages
#define S_STAT 320 // struct stat
#define S_MODE (S_STAT+24)
#define S_SIZE (S_STAT+48)
#define S_PROBED 464 // two struct iovec: what is read before the call is made:
#define S_PROBE 496 // the ring's size,
#define S_CODE 500 // and the first bytes of what the helper is to enter
#define S_PROBELEN 520
#define S_SPARE 528 // 1: the helper does not enter the program
#define S_GO 532 // 1: a spare helper has a call
#define S_TID 536
#define S_IDLE 544 // struct timespec
#define S_MANNER 560 // not 0: the program speaks another ABI,
#define S_CONTEXT 568 // and these are its registers
#define S_FRAME (SLOTSIZE-FRAME)

// struct syslet_ring
#define RING_ELEMENTS 8
#define RING_COMP 16

// KINDS
#define KIND_DIRECT 1 // does not block, or concerns its thread
#define KIND_REFUSED 2 // returns twice, or not to its caller
#define KIND_FLAGS2 3 // takes MSG_DONTWAIT in argument 2
#define KIND_FLAGS3 4 // the same in argument 3
#define KIND_READ 5
#define KIND_PREAD 6
#define KIND_WRITE 7
#define KIND_PWRITE 8
#define KIND_ALIKE 9 // the same call in whichever thread
#define KIND_ACCEPT 10 // does not block on a non-blocking descriptor

#define ESYSLETPENDING 132
#define SYS_mmap 9
#define SYS_munmap 11
#define SYS_rt_sigprocmask 14
#define SYS_madvise 28
#define SYS_clone 56
#define SYS_futex 202
#define SYS_preadv2 327
#define SYS_pwritev2 328
#define SYS_fstat 5
#define SYS_exit 60
#define SYS_gettid 186
#define SYS_kcmp 312
#define KCMP_FILES 2
#define S_IFMT 0xf000
#define S_IFREG 0x8000
#define S_IFBLK 0x6000
#define MAJOR 0xfff00 // of the device, in st_dev
#define SYS_cachestat 451
#define PAGESHIFT 12
#define MAP_32BIT 0x40
#define MSG_DONTWAIT 0x40
#define RWF_NOWAIT 8
#define SYSLET_CLONE 0x150f00 // VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, PARENT_SETTID
#define FUTEX_WAIT 0
#define FUTEX_WAIT_PRIVATE 128
#define FUTEX_WAKE_PRIVATE 129
#define FUTEX_WAKE_OP 5
#define ADD_ONE 0x10001000 // FUTEX_OP(FUTEX_OP_ADD, 1, FUTEX_OP_CMP_EQ, 0)
#define SYS_sched_yield 24

#define SYS_process_vm_readv 310
#define SYS_process_vm_writev 311
#define SYS_getpid 39
#define SYS_getsockopt 55
#define SYS_ppoll 271
#define SYS_fcntl 72
#define SYS_close 3
#define SYS_prlimit64 302
#define SYS_getrandom 318
#define F_DUPFD 0
#define F_SETFD 2
#define F_GETFL 3
#define F_SETFL 4
#define F_DUPFD_CLOEXEC 1030
#define O_NONBLOCK 0x800
#define O_PATH 0x200000
#define RLIMIT_NOFILE 7
#define SOL_SOCKET 1
#define SO_ACCEPTCONN 30
#define POLLIN 1
#define MSG_CMSG_CLOEXEC 0x40000000
#define HIGHEST 65536 // a descriptor table grows with its largest number: 8 bytes a slot, copied by fork

// What has to come back as it was, and the arguments to work on.
#define SAVEARGS \
	MOVQ DI, (F_ARGS+0)(SP) \
	MOVQ SI, (F_ARGS+8)(SP) \
	MOVQ DX, (F_ARGS+16)(SP) \
	MOVQ R10, (F_ARGS+24)(SP) \
	MOVQ R8, (F_ARGS+32)(SP) \
	MOVQ R9, (F_ARGS+40)(SP) \
	MOVQ AX, F_NR(SP) \
	MOVQ CX, F_THUNK(SP) \
	MOVQ BX, F_RBX(SP) \
	MOVQ $0, F_ZERO(SP)

#define RESTOREARGS \
	MOVQ (F_ARGS+0)(SP), DI \
	MOVQ (F_ARGS+8)(SP), SI \
	MOVQ (F_ARGS+16)(SP), DX \
	MOVQ (F_ARGS+24)(SP), R10 \
	MOVQ (F_ARGS+32)(SP), R8 \
	MOVQ (F_ARGS+40)(SP), R9 \
	MOVQ F_RBX(SP), BX \
	MOVQ F_THUNK(SP), CX

// The call of the syslet in the slot that BX points to.
#define LOADCALL \
	MOVQ (S_REGS+0)(BX), AX \
	MOVQ (S_REGS+8)(BX), DI \
	MOVQ (S_REGS+16)(BX), SI \
	MOVQ (S_REGS+24)(BX), DX \
	MOVQ (S_REGS+32)(BX), R10 \
	MOVQ (S_REGS+40)(BX), R8 \
	MOVQ (S_REGS+48)(BX), R9

// func stub()
//
// Entered from a thunk: CX holds the thunk's address, AX the call's number,
// the argument registers its arguments. R11 is free, as after SYSCALL.
TEXT ·stub(SB), NOSPLIT|NOFRAME, $0-0
	// syslet_ring_wait(ring, idx)
ringwait:
	MOVQ SI, R11
	SHRQ $32, R11
	JNE  passed
	MOVQ SI, DX
	XORL R10, R10
	MOVL $FUTEX_WAIT, SI
waitmore:
	MOVL $SYS_futex, AX
	SYSCALL
	TESTQ AX, AX
	JEQ  waitmore // woken: look again
	CMPQ AX, $-14
	JEQ  fault
	CMPQ AX, $-11 // EAGAIN: another value
	JNE  finish
	XORL AX, AX
	JMP  finish
passed:
	// No head is as large, but the ring must be there.
	MOVQ DI, (F_COPYREMOTE+0)(SP)
	MOVQ $4, (F_COPYREMOTE+8)(SP)
	MOVL $SYS_getpid, AX
	SYSCALL
	MOVQ AX, DI
	LEAQ F_REGS(SP), R11
	MOVQ R11, (F_COPYLOCAL+0)(SP)
	MOVQ $4, (F_COPYLOCAL+8)(SP)
	LEAQ F_COPYLOCAL(SP), SI
	MOVL $1, DX
	LEAQ F_COPYREMOTE(SP), R10
	MOVL $1, R8
	XORL R9, R9
	MOVL $SYS_process_vm_readv, AX
	SYSCALL
	CMPQ AX, $4
	JNE  fault
	XORL AX, AX
	JMP  finish

	// indirect(2) with struct syslet_args. BX is the slot from here on.
syslet:
	MOVQ HEADER_ARENA(CX), R11
	TESTQ R11, R11
	JEQ  arena
	MOVQ R11, BX
take:
	ADDQ $SLOTSIZE, BX
	LEAQ ARENASIZE(R11), AX
	CMPQ BX, AX
	JEQ  full
	CMPL S_TAKEN(BX), $0
	JNE  take
	MOVL $1, AX
	XCHGL AX, S_TAKEN(BX)
	TESTL AX, AX
	JNE  take
	MOVQ R11, S_ARENA(BX)
	MOVL $SYS_getpid, AX
	SYSCALL
	MOVQ AX, S_PID(BX)
	MOVQ $-1, S_ALL(BX)
	MOVL $0, S_SPARE(BX)
	MOVL $0, S_MANNER(BX)
	MOVL F_THUNK(SP), AX
	CMPW AX, $CARRIEDTHUNK
	JEQ  carry
	// What is on the page that the program's stack pointer is on can be read.
	CMPQ (F_ARGS+16)(SP), $32
	JNE  copyregs
	MOVQ (F_ARGS+8)(SP), SI
	CMPQ SI, SP
	JCS  copyregs
	LEAQ FRAME(SP), R11
	ORQ  $0xfff, R11
	SUBQ $31, R11
	CMPQ SI, R11
	JHI  copyregs
	MOVQ (F_ARGS+0)(SP), DI
	CMPQ DI, SP
	JCS  copyregs
	SUBQ $(55-31), R11
	CMPQ DI, R11
	JHI  copyregs
	MOVL $7, CX
loadregs:
	MOVQ -8(DI)(CX*8), AX
	MOVQ AX, (S_REGS-8)(BX)(CX*8)
	DECL CX
	JNE  loadregs
	MOVL $4, CX
loadparams:
	MOVQ -8(SI)(CX*8), AX
	MOVQ AX, (S_RING-8)(BX)(CX*8)
	DECL CX
	JNE  loadparams
	MOVQ S_PID(BX), DI
	LEAQ S_LOCAL(BX), SI
	MOVL $1, DX
	LEAQ S_REMOTE(BX), R10
	MOVL $1, R8
	XORL R9, R9
	JMP  ring
copyregs:
	LEAQ S_REGS(BX), AX
	MOVQ AX, (S_LOCAL+0)(BX)
	MOVQ $56, (S_LOCAL+8)(BX)
	MOVQ (F_ARGS+0)(SP), AX
	MOVQ AX, (S_REMOTE+0)(BX)
	MOVQ $56, (S_REMOTE+8)(BX)
	MOVQ S_PID(BX), DI
	LEAQ S_LOCAL(BX), SI
	MOVL $1, DX
	LEAQ S_REMOTE(BX), R10
	MOVL $1, R8
	XORL R9, R9
	MOVL $SYS_process_vm_readv, AX
	SYSCALL
	CMPQ AX, $56
	JNE  sysletfault
	MOVQ $0, S_RING(BX)
	MOVQ $0, S_DATA(BX)
	MOVQ $0, S_IP(BX)
	MOVQ $0, S_SP(BX)
	LEAQ S_RING(BX), AX
	MOVQ AX, (S_LOCAL+0)(BX)
	MOVQ (F_ARGS+16)(SP), AX
	MOVQ AX, (S_LOCAL+8)(BX)
	MOVQ AX, (S_REMOTE+8)(BX)
	MOVQ (F_ARGS+8)(SP), AX
	MOVQ AX, (S_REMOTE+0)(BX)
	MOVL $SYS_process_vm_readv, AX
	SYSCALL
	CMPQ AX, (F_ARGS+16)(SP)
	JNE  sysletbad
ring:
	MOVQ S_RING(BX), R11
	TESTQ R11, R11
	JEQ  noring
	CMPQ S_IP(BX), $0
	JEQ  sysletinvalid
	CMPQ S_SP(BX), $0
	JEQ  sysletinvalid
	LEAQ S_PROBE(BX), AX
	MOVQ AX, (S_LOCAL+0)(BX)
	MOVQ $20, (S_LOCAL+8)(BX)
	ADDQ $RING_ELEMENTS, R11
	MOVQ R11, (S_PROBED+0)(BX)
	MOVQ $4, (S_PROBED+8)(BX)
	MOVQ S_IP(BX), AX
	MOVQ AX, (S_PROBED+16)(BX)
	MOVQ $16, (S_PROBED+24)(BX)
	LEAQ S_PROBED(BX), R10
	MOVQ S_REGS(BX), AX
	CMPQ AX, $NUMBERS
	JHS  probe
	MOVL F_THUNK(SP), CX
	ANDL $0xffff0000, CX
	MOVBLZX KINDS(CX)(AX*1), AX
	CMPL AX, $KIND_PREAD
	JEQ  probeboth
	CMPL AX, $KIND_ALIKE
	JNE  probe
probeboth:
	MOVL $2, R8
probe:
	MOVL $SYS_process_vm_readv, AX
	SYSCALL
	CMPQ AX, $4
	JLT  sysletbad
	MOVQ AX, S_PROBELEN(BX)
	MOVL S_PROBE(BX), AX
	TESTL AX, AX
	JEQ  sysletinvalid
	LEAL -1(AX), R11
	TESTL R11, AX
	JNE  sysletinvalid
	MOVL F_THUNK(SP), CX
	ANDL $0xffff0000, CX
	MOVQ S_REGS(BX), AX
	CMPQ AX, $NUMBERS
	JHS  handover
	MOVBLZX KINDS(CX)(AX*1), R11
	CMPL R11, $KIND_REFUSED
	JEQ  sysletinvalid
	CMPL R11, $KIND_DIRECT
	JEQ  direct
	CMPL R11, $KIND_FLAGS2
	JEQ  dontwait
	CMPL R11, $KIND_FLAGS3
	JEQ  dontwait
	CMPL R11, $KIND_READ
	JCS  handover
	CMPL R11, $KIND_ALIKE
	JEQ  alike
	CMPL R11, $KIND_ACCEPT
	JEQ  mayblock

	// read, pread64, write, pwrite64: as preadv2 and pwritev2 with RWF_NOWAIT.
	MOVQ (S_REGS+8)(BX), DI
	CMPL R11, $KIND_PREAD
	JNE  nowait
	// The attempt would begin to read what is not cached, in this thread,
	// which costs as much as the call: the helper does it better. At the
	// file's end there is nothing to cache. File systems without a disk of
	// their own may keep what they cache elsewhere: overlayfs does.
	MOVQ (S_REGS+32)(BX), AX
	MOVQ AX, (S_RANGE+0)(BX)
	MOVQ (S_REGS+24)(BX), AX
	TESTQ AX, AX
	JEQ  nowait
	MOVQ AX, (S_RANGE+8)(BX)
	LEAQ S_RANGE(BX), SI
	LEAQ S_CACHED(BX), DX
	XORL R10, R10
	MOVL $SYS_cachestat, AX
	SYSCALL
	MOVL $KIND_PREAD, R11
	TESTQ AX, AX
	JNE  nowait // Linux before 6.5, or a file that we must not ask about
	MOVQ (S_RANGE+0)(BX), AX
	MOVQ (S_RANGE+8)(BX), CX
	LEAQ -1(AX)(CX*1), CX
	SHRQ $PAGESHIFT, AX
	SHRQ $PAGESHIFT, CX
	SUBQ AX, CX
	CMPQ CX, S_CACHED(BX)
	JCS  nowait
	LEAQ S_STAT(BX), SI
	MOVL $SYS_fstat, AX
	SYSCALL
	MOVL $KIND_PREAD, R11
	TESTQ AX, AX
	JNE  nowait
	TESTL $MAJOR, S_STAT(BX)
	JEQ  nowait
	MOVQ (S_RANGE+0)(BX), AX
	CMPQ AX, S_SIZE(BX)
	JGE  nowait
	JMP  reads
nowait:
	MOVQ (S_REGS+16)(BX), AX
	MOVQ AX, (S_IOVEC+0)(BX)
	MOVQ (S_REGS+24)(BX), AX
	MOVQ AX, (S_IOVEC+8)(BX)
	LEAQ S_IOVEC(BX), SI
	MOVL $1, DX
	MOVQ $-1, R10 // the file's own position
	XORL R8, R8
	MOVL $RWF_NOWAIT, R9
	MOVL $SYS_preadv2, AX
	CMPL R11, $KIND_READ
	JEQ  attempt
	CMPL R11, $KIND_PREAD
	JEQ  positioned
	MOVL $SYS_pwritev2, AX
	CMPL R11, $KIND_WRITE
	JEQ  attempt
positioned:
	MOVQ (S_REGS+32)(BX), R10
	TESTQ R10, R10
	JLT  handover // -1 would be the file's own position
	SYSCALL
	CMPQ AX, (S_IOVEC+8)(BX)
	JEQ  sysletdone
	TESTQ AX, AX
	JGT  handover // there may be more
	JMP  attempted
attempt:
	SYSCALL
attempted:
	CMPQ AX, $-11 // EAGAIN
	JEQ  mayblock
	CMPQ AX, $-95 // EOPNOTSUPP
	JEQ  mayblock
	CMPQ AX, $-22 // EINVAL: of the attempt, or of the call
	JEQ  mayblock
	CMPQ AX, $-38 // ENOSYS
	JEQ  mayblock
sysletdone:
	MOVL $0, S_TAKEN(BX)
	JMP  finish

dontwait:
	LEAQ TRIEDTHUNK(CX), CX
	LOADCALL
	CMPL R11, $KIND_FLAGS2
	JEQ  dontwait2
	ORQ  $MSG_DONTWAIT, R10
	JMP  any
dontwait2:
	ORQ  $MSG_DONTWAIT, DX
	JMP  any
	// Where TRIEDTHUNK leads.
	SUBQ $(FRAME-NESTED), SP
	CMPQ AX, $-11
	JNE  sysletdone

	// It does not block if the program has made the descriptor non-blocking.
	// Files on disk do nevertheless.
mayblock:
	MOVQ (S_REGS+8)(BX), DI
	MOVL $F_GETFL, SI
	MOVL $SYS_fcntl, AX
	SYSCALL
	TESTQ AX, AX
	JLT  handover
	TESTL $O_NONBLOCK, AX
	JEQ  handover
	LEAQ S_STAT(BX), SI
	MOVL $SYS_fstat, AX
	SYSCALL
	TESTQ AX, AX
	JNE  handover
	MOVL S_MODE(BX), AX
	ANDL $S_IFMT, AX
	CMPL AX, $S_IFREG
	JEQ  handover
	CMPL AX, $S_IFBLK
	JEQ  handover
	MOVL F_THUNK(SP), CX
	ANDL $0xffff0000, CX
	JMP  direct

	// A read of what is not cached of a regular file is alike, too. If all that
	// the helper is to do in the program is to end, it does not enter it, and can
	// make another such call: what a thread has of its own (credentials,
	// scheduling, its thread pointer) is none of that call's business, except for
	// its descriptors and the filters over it.
reads:
	MOVL S_MODE(BX), AX
	ANDL $S_IFMT, AX
	CMPL AX, $S_IFREG
	JNE  handover
alike:
	CMPQ S_PROBELEN(BX), $20
	JNE  handover
	MOVL F_THUNK(SP), CX
	ANDL $0xffff0000, CX
	TESTL $OWNFILTERS, HEADER_FLAGS(CX)
	JNE  handover
	LEAQ S_CODE(BX), SI
	XORL DX, DX // is AX SYS_exit there?
decode:
	LEAQ (S_CODE+14)(BX), AX
	CMPQ SI, AX
	JHI  handover
	MOVWLZX 0(SI), AX
	CMPL AX, $0x050f // syscall
	JEQ  decoded
	CMPL AX, $0xff31 // xor %edi,%edi
	JEQ  decode2
	CMPL AX, $0x1ef3
	JEQ  decodex
	MOVBLZX AX, AX
	CMPL AX, $0xbf // mov $..,%edi
	JEQ  decode5
	CMPL AX, $0xb8 // mov $..,%eax
	JNE  handover
	CMPL 1(SI), $SYS_exit
	JNE  handover
	INCL DX
decode5:
	ADDQ $3, SI
decode2:
	ADDQ $2, SI
	JMP  decode
decodex:
	CMPL 0(SI), $0xfa1e0ff3 // endbr64
	JNE  handover
	ADDQ $4, SI
	JMP  decode
decoded:
	MOVL DX, S_SPARE(BX)

	// The call may block: a new thread makes it. Its frame, in the slot, has
	// the program's registers, which it enters the program with in the end.
handover:
	MOVQ (F_ARGS+0)(SP), AX
	MOVQ AX, (S_FRAME+F_ARGS+0)(BX)
	MOVQ (F_ARGS+8)(SP), AX
	MOVQ AX, (S_FRAME+F_ARGS+8)(BX)
	MOVQ (F_ARGS+16)(SP), AX
	MOVQ AX, (S_FRAME+F_ARGS+16)(BX)
	MOVQ (F_ARGS+24)(SP), AX
	MOVQ AX, (S_FRAME+F_ARGS+24)(BX)
	MOVQ (F_ARGS+32)(SP), AX
	MOVQ AX, (S_FRAME+F_ARGS+32)(BX)
	MOVQ (F_ARGS+40)(SP), AX
	MOVQ AX, (S_FRAME+F_ARGS+40)(BX)
	MOVQ F_NR(SP), AX
	MOVQ AX, (S_FRAME+F_NR)(BX)
	MOVQ F_RBX(SP), AX
	MOVQ AX, (S_FRAME+F_RBX)(BX)
	MOVQ $0, (S_FRAME+F_ZERO)(BX)
	MOVL F_THUNK(SP), AX
	ANDL $0xffff0000, AX
	ADDL $HELPERTHUNK, AX
	MOVQ AX, (S_FRAME+F_THUNK)(BX)
	// The helper has no stack for handlers before it enters the program.
	MOVL $2, DI // SIG_SETMASK
	LEAQ S_ALL(BX), SI
	LEAQ F_MASK(SP), DX
	MOVL $8, R10
	MOVL $SYS_rt_sigprocmask, AX
	SYSCALL
	MOVQ F_MASK(SP), AX
	MOVQ AX, S_MASK(BX)
	CMPL S_SPARE(BX), $0
	JEQ  newhelper
	// A spare helper, if it is one of this process (vfork's child has the
	// arena as well) and has this thread's descriptors.
spare:
	MOVQ S_ARENA(BX), R11
	BSFQ ARENA_SPARES(R11), CX
	JEQ  newhelper
	MOVQ CX, R9
	SHLQ $SLOTSHIFT, R9
	ADDQ R11, R9
	MOVQ S_PID(R9), AX
	CMPQ AX, S_PID(BX)
	JNE  newhelper
	LOCK
	BTRQ CX, ARENA_SPARES(R11)
	JCC  spare
	MOVL $SYS_gettid, AX
	SYSCALL
	MOVQ AX, DI
	MOVL S_TID(R9), SI
	MOVL $KCMP_FILES, DX
	XORL R10, R10
	XORL R8, R8
	MOVL $SYS_kcmp, AX
	SYSCALL
	TESTQ AX, AX
	JNE  other
	MOVL $11, CX // from S_REGS to S_SP
give:
	MOVQ (S_REGS-8)(BX)(CX*8), AX
	MOVQ AX, (S_REGS-8)(R9)(CX*8)
	DECL CX
	JNE  give
	MOVL $1, S_GO(R9)
	LEAQ S_GO(R9), DI
	MOVL $FUTEX_WAKE_PRIVATE, SI
	MOVL $1, DX
	MOVL $SYS_futex, AX
	SYSCALL
	MOVL $0, S_TAKEN(BX)
	JMP  pending
other:
	MOVQ R9, CX
	MOVQ S_ARENA(BX), R11
	SUBQ R11, CX
	SHRQ $SLOTSHIFT, CX
	LOCK
	BTSQ CX, ARENA_SPARES(R11)
newhelper:
	MOVL $SYSLET_CLONE, DI
	LEAQ SLOTSIZE(BX), SI
	LEAQ S_TID(BX), DX
	XORL R10, R10
	XORL R8, R8
	MOVL $SYS_clone, AX
	SYSCALL
	TESTQ AX, AX
	JEQ  helper
	JGT  pending // the slot is the helper's now
	MOVL $0, S_TAKEN(BX)
	JMP  unmask
pending:
	MOVQ $-ESYSLETPENDING, AX
unmask:
	MOVQ AX, BX
	MOVL $2, DI
	LEAQ F_MASK(SP), SI
	XORL DX, DX
	MOVL $8, R10
	MOVL $SYS_rt_sigprocmask, AX
	SYSCALL
	MOVQ BX, AX
	JMP  finish

helper:
	LEAQ -FRAME(SP), SP
	MOVL F_THUNK(SP), CX
	ANDL $0xffff0000, CX
direct:
	LEAQ OWNTHUNK(CX), CX
	LOADCALL
	// A call that runs in the program's own thread needs the slot no more.
	LEAQ S_FRAME(BX), R11
	CMPQ R11, SP
	JEQ  any
	MOVL $0, S_TAKEN(BX)

	// Any call, with the properties that the program wants: AX its number,
	// the argument registers its arguments, CX the thunk behind it, BX to be kept.
any:
	LEAQ -NESTED(SP), SP
	SAVEARGS
	CMPQ AX, $NUMBERS
	JHS  unchanged
	ANDL $0xffff0000, CX
	LEAQ SETS(CX), CX
	MOVBLZX (CX)(AX*1), R11
	TESTL R11, R11
	JEQ  unchanged
	CMPL R11, $LEFT
	JHS  unchanged
	LEAQ (NUMBERS-(1<<ROWSHIFT))(CX), CX
	JMP  row

	// Where HELPERTHUNK leads: the call has ended with AX, the registers are the
	// program's again.
ended:
	LEAQ -SLOTSIZE(SP), BX
	MOVLQSX AX, AX
	MOVQ AX, S_STATUS(BX)
	CMPL S_SPARE(BX), $0
	JEQ  complete
	MOVQ $-1, R12 // not a spare helper yet
complete:
	MOVQ S_DATA(BX), AX
	MOVQ AX, S_STATUSDATA(BX)
lock:
	MOVQ S_ARENA(BX), R11
	MOVL $1, AX
	XCHGL AX, ARENA_LOCK(R11)
	TESTL AX, AX
	JEQ  locked
	MOVL $SYS_sched_yield, AX
	SYSCALL
	JMP  lock
locked:
	MOVQ S_PID(BX), DI
	LEAQ S_LOCAL(BX), SI
	MOVL $1, DX
	LEAQ S_REMOTE(BX), R10
	MOVL $1, R8
	XORL R9, R9
	LEAQ S_HEAD(BX), AX
	MOVQ AX, (S_LOCAL+0)(BX)
	MOVQ $16, (S_LOCAL+8)(BX)
	MOVQ S_RING(BX), AX
	MOVQ AX, (S_REMOTE+0)(BX)
	MOVQ $16, (S_REMOTE+8)(BX)
	MOVL $SYS_process_vm_readv, AX
	SYSCALL
	CMPQ AX, $16
	JNE  lostfault
	MOVL S_ELEMENTS(BX), AX
	LEAL -1(AX), R11
	TESTL AX, AX
	JEQ  lostinvalid
	TESTL R11, AX
	JNE  lostinvalid
	MOVL S_HEAD(BX), AX
	ANDL R11, AX
	SHLQ $4, AX
	ADDQ S_RING(BX), AX
	ADDQ $RING_COMP, AX
	MOVQ AX, (S_REMOTE+0)(BX)
	LEAQ S_STATUS(BX), AX
	MOVQ AX, (S_LOCAL+0)(BX)
	MOVL $SYS_process_vm_writev, AX
	SYSCALL
	CMPQ AX, $16
	JNE  lostfault
	MOVQ S_RING(BX), DI
	CMPL S_SPARE(BX), $0
	JEQ  publish
	// Who learns of the completion may need a helper at once: this one can be
	// given its next call from here on.
	MOVQ (S_FRAME+F_THUNK)(BX), CX
	ANDL $0xffff0000, CX
	TESTL $OWNFILTERS, HEADER_FLAGS(CX)
	JNE  publish
	MOVQ S_ARENA(BX), R11
	MOVQ BX, AX
	SUBQ R11, AX
	SHRQ $SLOTSHIFT, AX
	CMPQ AX, $SPARES
	JHS  publish
	MOVQ AX, R12
	MOVL $0, S_GO(BX)
	LOCK
	BTSQ R12, ARENA_SPARES(R11)
publish:
	// The head, and a wake-up for who waits for it, in one step that may fail.
	MOVL $FUTEX_WAKE_OP, SI
	MOVL $0x7fffffff, DX
	XORL R10, R10
	MOVQ DI, R8
	MOVL $ADD_ONE, R9
	MOVL $SYS_futex, AX
	SYSCALL
	TESTQ AX, AX
	JLT  lost
	XORL AX, AX
	JMP  lost
lostfault:
	MOVQ $-14, AX
	JMP  lost
lostinvalid:
	MOVQ $-22, AX
lost:
	MOVQ AX, S_RESULT(BX)
	MOVQ S_ARENA(BX), R11
	XORL AX, AX
	XCHGL AX, ARENA_LOCK(R11)
	CMPL S_MANNER(BX), $0
	JNE  carried
	CMPL S_SPARE(BX), $0
	JNE  park
	MOVQ S_SP(BX), SP
	MOVL $2, DI
	LEAQ S_MASK(BX), SI
	XORL DX, DX
	MOVL $8, R10
	MOVL $SYS_rt_sigprocmask, AX
	SYSCALL
	MOVQ BX, CX
	MOVQ (S_FRAME+F_ARGS+0)(CX), DI
	MOVQ (S_FRAME+F_ARGS+8)(CX), SI
	MOVQ (S_FRAME+F_ARGS+16)(CX), DX
	MOVQ (S_FRAME+F_ARGS+24)(CX), R10
	MOVQ (S_FRAME+F_ARGS+32)(CX), R8
	MOVQ (S_FRAME+F_ARGS+40)(CX), R9
	MOVQ (S_FRAME+F_RBX)(CX), BX
	MOVQ S_RESULT(CX), AX
	MOVQ S_IP(CX), R11
	MOVL $0, S_TAKEN(CX)
	JMP  R11

	// The helper waits for another call, or ends.
park:
	TESTQ R12, R12
	JLT  end
	MOVQ $0, (S_IDLE+0)(BX)
	MOVQ $IDLE, (S_IDLE+8)(BX)
parked:
	LEAQ S_GO(BX), DI
	MOVL $FUTEX_WAIT_PRIVATE, SI
	XORL DX, DX
	LEAQ S_IDLE(BX), R10
	MOVL $SYS_futex, AX
	SYSCALL
	CMPL S_GO(BX), $0
	JNE  unparked
	CMPQ AX, $-110 // ETIMEDOUT
	JNE  parked
	MOVQ S_ARENA(BX), R11
	LOCK
	BTRQ R12, ARENA_SPARES(R11)
	JCC  parked // taken: its call is on the way
end:
	MOVL $0, S_TAKEN(BX)
	XORL DI, DI
	MOVL $SYS_exit, AX
	SYSCALL
unparked:
	LEAQ SLOTSIZE(BX), SP
	JMP  helper

sysletinvalid:
	MOVL $0, S_TAKEN(BX)
	JMP  invalid
sysletfault:
	MOVL $0, S_TAKEN(BX)
	JMP  fault
sysletbad:
	MOVL $0, S_TAKEN(BX)
	MOVQ $-14, AX
	JMP  finish
full:
	MOVQ $-11, AX // EAGAIN: as many threads are at work as can be
	JMP  finish

	// Without a ring, it is a plain call, from the white list.
noring:
	MOVL F_THUNK(SP), CX
	ANDL $0xffff0000, CX
	LOADCALL
	MOVL $0, S_TAKEN(BX)
	XORL R11, R11
	JMP  nested

	// The process's first syslet: map an arena, which a child of fork finds
	// empty, and tell the supervisor, who writes its address down and says
	// which one is to be used: another thread may have been faster.
arena:
	XORL DI, DI
	MOVL $ARENASIZE, SI
	MOVL $3, DX // PROT_READ, PROT_WRITE
	MOVL $0x4022, R10 // MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE
	MOVL F_THUNK(SP), AX
	CMPW AX, $CARRIEDTHUNK
	JNE  maparena
	ORL  $MAP_32BIT, R10 // or the kernel would look where such a program has nothing
maparena:
	MOVQ $-1, R8
	XORL R9, R9
	MOVL $SYS_mmap, AX
	SYSCALL
	CMPQ AX, $-4096
	JHI  finish
	MOVQ AX, DI
	MOVL $18, DX // MADV_WIPEONFORK
	MOVL $SYS_madvise, AX
	SYSCALL
	MOVQ SI, DX
	MOVL $2015, AX // Mapped
	SYSCALL
	CMPQ AX, DI
	JEQ  mapped
	MOVQ AX, BX
	MOVQ DX, SI
	MOVL $SYS_munmap, AX
	SYSCALL
	TESTQ BX, BX
	JLE  noarena
mapped:
	RESTOREARGS
	ANDL $0xffff0000, CX
	JMP  syslet
noarena:
	MOVQ $-38, AX // ENOSYS
	JMP  finish

	// A syslet of a program of another ABI: the supervisor has sent its thread
	// to where syslets begin, and there is a slot now.
carry:
	MOVL $11, CX // from S_REGS to S_SP
carrycall:
	MOVQ (F_CALL-8)(SP)(CX*8), AX
	MOVQ AX, (S_REGS-8)(BX)(CX*8)
	DECL CX
	JNE  carrycall
	MOVL F_MANNER(SP), AX
	MOVL AX, S_MANNER(BX)
	MOVL $C_WORDS, CX
carrycontext:
	MOVQ (FRAME-8)(SP)(CX*8), AX
	MOVQ AX, (S_CONTEXT-8)(BX)(CX*8)
	DECL CX
	JNE  carrycontext
	MOVL $SYSLET_CLONE, DI
	LEAQ SLOTSIZE(BX), SI
	LEAQ S_TID(BX), DX
	XORL R10, R10
	XORL R8, R8
	MOVL $SYS_clone, AX
	SYSCALL
	TESTQ AX, AX
	JEQ  carrier
	JLT  nocarrier
	MOVQ $-ESYSLETPENDING, AX
	JMP  finish
nocarrier:
	MOVL $0, S_TAKEN(BX)
	JMP  finish

	// The helper, on the end of its slot.
carrier:
	MOVL S_MANNER(BX), AX
	TESTL $I386CALL, AX
	JNE  carryi386
	LOADCALL
	SYSCALL
	JMP  carryresult
carryi386:
	MOVL (S_REGS+0)(BX), AX
	MOVL (S_REGS+16)(BX), CX
	MOVL (S_REGS+24)(BX), DX
	MOVL (S_REGS+32)(BX), SI
	MOVL (S_REGS+40)(BX), DI
	MOVL (S_REGS+48)(BX), BP
	MOVL (S_REGS+8)(BX), BX
	INT  $0x80
carryresult:
	CMPL AX, $2
	JHI  ended
	MOVL (S_MANNER-SLOTSIZE)(SP), CX
	TESTL $STANDARD, CX
	JEQ  ended
	MOVL AX, R12
	MOVL AX, DI
	MOVL $F_SETFD, SI
	XORL DX, DX
	MOVL $SYS_fcntl, AX
	SYSCALL
	MOVL R12, AX
	JMP  ended

	// It enters the program. The stack that the program gives has room for
	// what takes a thread there.
carried:
	MOVQ S_SP(BX), SP
	MOVQ SP, CX
	LEAQ -48(SP), SP
	MOVQ S_IP(BX), AX
	MOVQ AX, 8(SP)
	MOVQ (S_CONTEXT+C_CS)(BX), AX
	MOVQ AX, 16(SP)
	MOVQ (S_CONTEXT+C_FLAGS)(BX), AX
	MOVQ AX, 24(SP)
	MOVQ CX, 32(SP)
	MOVQ (S_CONTEXT+C_SS)(BX), AX
	MOVQ AX, 40(SP)
	MOVQ S_RESULT(BX), AX
	MOVQ AX, (S_CONTEXT+C_AX)(BX)
	LEAQ S_CONTEXT(BX), BX
	JMP  leave

	// Where CARRIEDTHUNK leads: back into the program with AX.
	MOVQ AX, C_AX(SP)
	MOVQ SP, BX
	LEAQ C_MASK(SP), SP

	// BX points to the program's registers, SP to a word that is free and what
	// IRETQ takes. A handler that runs from here on saves no more of r8 to r15
	// than its ABI has.
leave:
	MOVL $2, DI // SIG_SETMASK
	LEAQ C_MASK(BX), SI
	XORL DX, DX
	MOVL $8, R10
	MOVL $SYS_rt_sigprocmask, AX
	SYSCALL
	MOVQ C_BX(BX), AX
	MOVQ AX, (SP)
	MOVQ C_R15(BX), R15
	MOVQ C_R14(BX), R14
	MOVQ C_R13(BX), R13
	MOVQ C_R12(BX), R12
	MOVQ C_BP(BX), BP
	MOVQ C_R11(BX), R11
	MOVQ C_R10(BX), R10
	MOVQ C_R9(BX), R9
	MOVQ C_R8(BX), R8
	MOVQ C_CX(BX), CX
	MOVQ C_DX(BX), DX
	MOVQ C_SI(BX), SI
	MOVQ C_DI(BX), DI
	LEAQ C_MASK(BX), AX
	CMPQ AX, SP
	MOVQ C_AX(BX), AX
	JEQ  own // these are no slot's
	MOVL $0, (S_TAKEN-S_CONTEXT)(BX)
own:
	POPQ BX
	IRETQ

	// What comes before this mark is written into an image when it is first
	// needed.
	LONG $0x0b0e0d0a; LONG $0x444c4f43; LONG $0x0b0e0d0a; LONG $0x444c4f43

	// The entry.
	CMPQ AX, $NUMBERS
	JHS  beyond
	MOVL CX, R11
	ANDL $0xffff0000, R11
	MOVBLZX INDEX(R11)(AX*1), R11
	TESTL R11, R11
	JNE  listed
	CMPL AX, $FORMER_INDIRECT
	JEQ  former
	CMPL AX, $FORMER_WAIT
	JEQ  formerwait

plain:
	// Not a call of ours. The thunk issues it on an untouched stack, so that
	// vfork and clone return as they should.
	ADDQ $THUNK_PLAIN, CX
	JMP  CX

listed:
	LEAQ -FRAME(SP), SP
	SAVEARGS
	ANDL $0xffff0000, CX
	LEAQ (ROWS-(1<<ROWSHIFT))(CX), CX

	// R11 is 1 + the number of the row, CX where rows would begin with number 0.
row:
	SHLL $ROWSHIFT, R11
	LEAQ (CX)(R11*1), BX

	// Conditions: byte 0 the argument, byte 1 the kind, bytes 4..7 the value.
	MOVBLZX (ROW_COND0+1)(BX), R11
	TESTL R11, R11
	JEQ  matched
	MOVBLZX (ROW_COND0+0)(BX), AX
	MOVQ F_ARGS(SP)(AX*8), AX
	CMPL R11, $3
	JNE  cond0value
	SHRL $31, AX
cond0value:
	CMPL AX, (ROW_COND0+4)(BX)
	JEQ  cond0equal
	CMPL R11, $2
	JEQ  cond1
	JMP  next
cond0equal:
	CMPL R11, $2
	JEQ  next
cond1:
	MOVBLZX (ROW_COND1+1)(BX), R11
	TESTL R11, R11
	JEQ  matched
	MOVBLZX (ROW_COND1+0)(BX), AX
	MOVQ F_ARGS(SP)(AX*8), AX
	CMPL R11, $3
	JNE  cond1value
	SHRL $31, AX
cond1value:
	CMPL AX, (ROW_COND1+4)(BX)
	JEQ  cond1equal
	CMPL R11, $2
	JEQ  matched
	JMP  next
cond1equal:
	CMPL R11, $2
	JNE  matched
next:
	MOVBLZX ROW_NEXT(BX), R11
	TESTL R11, R11
	JNE  row

	// No operation of this call is ours.
unchanged:
	MOVQ F_NR(SP), AX
	MOVQ F_RBX(SP), BX
	MOVQ F_THUNK(SP), CX
	LEAQ FRAME(SP), SP
	JMP  plain

matched:
	MOVBLZX ROW_WORD(BX), R11
	TESTL R11, R11
	JNE  word

arguments:
	MOVBLZX (ROW_FROM+0)(BX), R11
	MOVQ F_ARGS(SP)(R11*8), DI
	MOVL (ROW_BITS+0)(BX), R11
	ORQ  R11, DI
	MOVBLZX (ROW_FROM+1)(BX), R11
	MOVQ F_ARGS(SP)(R11*8), SI
	MOVL (ROW_BITS+4)(BX), R11
	ORQ  R11, SI
	MOVBLZX (ROW_FROM+2)(BX), R11
	MOVQ F_ARGS(SP)(R11*8), DX
	MOVL (ROW_BITS+8)(BX), R11
	ORQ  R11, DX
	MOVBLZX (ROW_FROM+3)(BX), R11
	MOVQ F_ARGS(SP)(R11*8), R10
	MOVL (ROW_BITS+12)(BX), R11
	ORQ  R11, R10
	MOVBLZX (ROW_FROM+4)(BX), R11
	MOVQ F_ARGS(SP)(R11*8), R8
	MOVL (ROW_BITS+16)(BX), R11
	ORQ  R11, R8
	MOVBLZX (ROW_FROM+5)(BX), R11
	MOVQ F_ARGS(SP)(R11*8), R9
	MOVL (ROW_BITS+20)(BX), R11
	ORQ  R11, R9
issue:
	MOVL ROW_NR(BX), AX
	SYSCALL

	// What is left: nothing at all for a single descriptor above 2 with no
	// after-work, which is nearly every call. Errors are large unsigned numbers.
	MOVBLZX ROW_GIVES(BX), R11
	MOVBLZX ROW_AFTER(BX), CX
	ANDL $(AFTER_CLOEXEC|AFTER_NONBLOCK|AFTER_NONSEQ|AFTER_ERRNO), CX
	ORL  CX, R11
	JNE  after
	CMPQ AX, $2
	JLS  after

finish:
	RESTOREARGS
	LEAQ FRAME(SP), SP
	MOVQ THUNK_RETURN(CX), CX
	JMP  CX

	// The flags are in a structure in memory: run the call on a copy, which
	// other threads cannot change. process_vm_readv reads it because it
	// answers EFAULT where a load would be a signal.
word:
	MOVQ (F_ARGS+24)(SP), AX // size
	CMPQ AX, $24
	JCS  arguments // the kernel refuses it
	CMPQ AX, $64
	JHI  wordlater
	MOVL $SYS_getpid, AX
	SYSCALL
	MOVQ AX, DI
	LEAQ F_HOW(SP), R11
	MOVQ R11, (F_LOCAL+0)(SP)
	MOVQ (F_ARGS+24)(SP), R11
	MOVQ R11, (F_LOCAL+8)(SP)
	LEAQ F_LOCAL(SP), SI
	MOVQ (F_ARGS+16)(SP), AX
	MOVQ AX, (F_REMOTE+0)(SP)
	MOVQ R11, (F_REMOTE+8)(SP)
	LEAQ F_REMOTE(SP), R10
	MOVL $1, DX
	MOVL $1, R8
	XORL R9, R9
	MOVL $SYS_process_vm_readv, AX
	SYSCALL
	CMPQ AX, (F_ARGS+24)(SP)
	JEQ  wordcopied
	CMPQ AX, $-14
	JEQ  finish
	CMPQ AX, $0
	JLT  wordlater // forbidden here
	MOVQ $-14, AX // EFAULT in the middle of the structure
	JMP  finish
wordcopied:
	MOVL (ROW_BITS+8)(BX), R11
	TESTL $O_PATH, F_HOW(SP)
	JEQ  wordset
	ANDL $~O_NONBLOCK, R11 // openat2 refuses O_NONBLOCK with O_PATH
wordset:
	MOVQ F_HOW(SP), DX
	MOVQ DX, F_RESULT(SP) // what the program asked for
	ORQ  R11, DX
	MOVQ DX, F_HOW(SP)
	MOVQ (F_ARGS+0)(SP), DI
	MOVQ (F_ARGS+8)(SP), SI
	LEAQ F_HOW(SP), DX
	MOVQ (F_ARGS+24)(SP), R10
	MOVQ (F_ARGS+32)(SP), R8
	MOVQ (F_ARGS+40)(SP), R9
	JMP  issue
wordlater:
	// A structure larger than any kernel's of today: if it is accepted at all,
	// its flags are set on the result.
	MOVQ (F_ARGS+0)(SP), DI
	MOVQ (F_ARGS+8)(SP), SI
	MOVQ (F_ARGS+16)(SP), DX
	MOVQ (F_ARGS+24)(SP), R10
	MOVQ (F_ARGS+32)(SP), R8
	MOVQ (F_ARGS+40)(SP), R9
	MOVL F_NR(SP), AX
	SYSCALL
	MOVQ $0, F_RESULT(SP)
	CMPQ AX, $2
	JLS  finish
	TESTQ AX, AX
	JLT  finish
	MOVQ AX, F_RESULT(SP)
	MOVQ AX, DI
	MOVL $F_SETFD, SI
	MOVBLZX ROW_AFTER(BX), DX
	SHRL $3, DX // KEEP_CLOEXEC is FD_CLOEXEC here
	ANDL $1, DX
	MOVL $SYS_fcntl, AX
	SYSCALL
	MOVQ F_RESULT(SP), AX
	JMP  finish

	// AX is the call's result. Each new descriptor is looked at: R12 points
	// to the number, R13 counts those that remain in this array.
after:
	TESTQ AX, AX
	JLT  failed
	MOVQ BP, F_RBP(SP)
	MOVQ R12, F_R12(SP)
	MOVQ R13, F_R13(SP)
	MOVQ R14, F_R14(SP)
	MOVQ R15, F_R15(SP)

	// R15: did the program itself ask for close-on-exec?
	XORL R15, R15
	MOVBLZX ROW_FLAGSARG(BX), R11
	CMPL R11, $6
	JHS  asked
	MOVBLZX ROW_WORD(BX), CX
	TESTL CX, CX
	JNE  askedinword
	MOVQ F_ARGS(SP)(R11*8), R15
	JMP  askedmask
askedinword:
	MOVQ F_RESULT(SP), R15
askedmask:
	ANDL ROW_ASKED(BX), R15
asked:
	MOVBLZX ROW_AFTER(BX), R11
	ANDL $ASKED_ALWAYS, R11
	ORL  R11, R15
	MOVQ AX, F_RESULT(SP)
	MOVBLZX ROW_GIVES(BX), R11
	MOVBLZX ROW_POINTER(BX), CX
	MOVQ F_ARGS(SP)(CX*8), BP
	CMPL R11, $GIVES_PAIR
	JEQ  pair
	CMPL R11, $GIVES_CONTROL
	JEQ  control
	CMPL R11, $GIVES_CONTROLS
	JEQ  controls
	LEAQ F_RESULT(SP), R12
	MOVL $1, R13
	JMP  descriptor
	// On the stack, the pair is as good as ours. Elsewhere another thread may
	// take its memory away: it is read as openat2's structure is.
pair:
	MOVQ BP, R12
	MOVL $2, R13
	MOVQ BP, R11
	SUBQ SP, R11
	CMPQ R11, $NEAR
	JCS  descriptor
	MOVL $SYS_getpid, AX
	SYSCALL
	MOVQ AX, DI
	MOVQ AX, F_PID(SP)
	LEAQ F_PAIR(SP), R12
	MOVQ R12, (F_PAIRLOCAL+0)(SP)
	MOVQ $8, (F_PAIRLOCAL+8)(SP)
	MOVQ BP, (F_PAIRREMOTE+0)(SP)
	MOVQ $8, (F_PAIRREMOTE+8)(SP)
	LEAQ F_PAIRLOCAL(SP), SI
	LEAQ F_PAIRREMOTE(SP), R10
	MOVL $1, DX
	MOVL $1, R8
	XORL R9, R9
	MOVL $SYS_process_vm_readv, AX
	SYSCALL
	CMPQ AX, $8
	JEQ  descriptor
	JMP  settled

	// BP points to a struct msghdr: msg_control at 32, msg_controllen at 40.
control:
	MOVQ $0, F_LEFT(SP)
message:
	MOVQ BP, F_MESSAGE(SP)
	TESTL R15, R15
	JNE  asis
	ANDL $~MSG_CMSG_CLOEXEC, 48(BP) // msg_flags: the kernel reports our flag back
asis:
	MOVQ 32(BP), R11
	MOVQ 40(BP), CX
	ADDQ R11, CX
	MOVQ CX, F_END(SP)
	MOVQ R11, F_HEADER(SP)
header:
	MOVQ F_HEADER(SP), R12
	MOVQ F_END(SP), CX
	SUBQ R12, CX
	CMPQ CX, $20 // a header and one descriptor
	JLT  nextmessage
	MOVQ 0(R12), R13
	CMPQ R13, $16
	JCS  nextmessage
	CMPQ R13, CX
	JHI  nextmessage
	LEAQ 7(R12)(R13*1), R11
	ANDQ $~7, R11
	MOVQ R11, F_HEADER(SP)
	CMPL 8(R12), $1 // SOL_SOCKET
	JNE  header
	CMPL 12(R12), $1 // SCM_RIGHTS
	JNE  header
	SUBQ $16, R13
	SHRQ $2, R13
	JEQ  header
	ADDQ $16, R12
	JMP  descriptor
nextmessage:
	MOVQ F_LEFT(SP), R11
	TESTQ R11, R11
	JEQ  settled
	DECQ R11
	MOVQ R11, F_LEFT(SP)
	MOVQ F_MESSAGE(SP), BP
	ADDQ $64, BP // sizeof(struct mmsghdr)
	JMP  message
controls:
	MOVQ AX, R11
	TESTQ R11, R11
	JEQ  settled
	DECQ R11
	MOVQ R11, F_LEFT(SP)
	JMP  message

descriptor:
	MOVLQSX 0(R12), R14
	MOVBLZX ROW_AFTER(BX), R11
	TESTL $ANY_NUMBER, R11
	JNE  properties
	CMPQ R14, $2
	JLS  standard
properties:
	TESTL $AFTER_CLOEXEC, R11
	JEQ  nonblock
	MOVQ R14, DI
	MOVL $F_SETFD, SI
	MOVL $1, DX
	MOVL $SYS_fcntl, AX
	SYSCALL
nonblock:
	MOVBLZX ROW_AFTER(BX), R11
	TESTL $AFTER_NONBLOCK, R11
	JEQ  nonseq
	MOVQ R14, DI
	MOVL $F_GETFL, SI
	MOVL $SYS_fcntl, AX
	SYSCALL
	TESTQ AX, AX
	JLT  nonseq
	MOVQ R14, DI
	MOVL $F_SETFL, SI
	MOVQ AX, DX
	ORL  $O_NONBLOCK, DX
	MOVL $SYS_fcntl, AX
	SYSCALL
nonseq:
	MOVBLZX ROW_AFTER(BX), R11
	TESTL $AFTER_NONSEQ, R11
	JNE  move
descriptordone:
	ADDQ $4, R12
	DECQ R13
	JNE  descriptor
	MOVBLZX ROW_GIVES(BX), R11
	CMPL R11, $GIVES_CONTROL
	JHS  header
	LEAQ (F_PAIR+8)(SP), R11
	CMPQ R11, R12
	JNE  settled
	MOVQ F_PID(SP), DI // the pair's copy: write it back
	LEAQ F_PAIRLOCAL(SP), SI
	LEAQ F_PAIRREMOTE(SP), R10
	MOVL $1, DX
	MOVL $1, R8
	XORL R9, R9
	MOVL $SYS_process_vm_writev, AX
	SYSCALL
settled:
	MOVQ F_RBP(SP), BP
	MOVQ F_R12(SP), R12
	MOVQ F_R13(SP), R13
	MOVQ F_R14(SP), R14
	MOVQ F_R15(SP), R15
	MOVQ F_RESULT(SP), AX
	JMP  finish

	// A standard stream stays inheritable unless the program asked otherwise.
standard:
	TESTL R15, R15
	JNE  descriptordone
	MOVQ R14, DI
	MOVL $F_SETFD, SI
	XORL DX, DX
	MOVL $SYS_fcntl, AX
	SYSCALL
	JMP  descriptordone

	// A number that cannot be foretold: F_DUPFD takes the first free one from
	// a random minimum, so it never collides, in the upper half of the soft
	// limit; then anywhere above 2; then the number that the kernel gave stays.
move:
	XORL DI, DI
	MOVL $RLIMIT_NOFILE, SI
	XORL DX, DX
	LEAQ F_SCRATCH(SP), R10
	MOVL $SYS_prlimit64, AX
	SYSCALL
	TESTQ AX, AX
	JNE  stay
	MOVQ F_SCRATCH(SP), R11
	CMPQ R11, $HIGHEST
	JLS  limit
	MOVL $HIGHEST, R11
limit:
	CMPQ R11, $8
	JCS  stay
	MOVQ R11, (F_SCRATCH+8)(SP)
	LEAQ F_SCRATCH(SP), DI
	MOVL $8, SI
	MOVL $1, DX // GRND_NONBLOCK
	MOVL $SYS_getrandom, AX
	SYSCALL
	MOVL F_SCRATCH(SP), AX
	MOVQ (F_SCRATCH+8)(SP), CX
	MOVQ CX, R11
	SHRQ $1, R11 // the lower half's size
	SUBQ R11, CX
	XORL DX, DX
	DIVL CX
	ADDQ R11, DX
	MOVQ DX, (F_SCRATCH+0)(SP) // a random number of the upper half
	MOVQ R11, (F_SCRATCH+8)(SP) // its first one
	XORL BP, BP // attempts
again:
	MOVQ R14, DI
	MOVL $F_DUPFD_CLOEXEC, SI
	MOVBLZX ROW_AFTER(BX), R11
	ANDL $KEEP_CLOEXEC, R11
	ORL  R15, R11
	JNE  dup
	MOVL $F_DUPFD, SI
dup:
	MOVQ (F_SCRATCH+0)(SP), DX
	MOVL $SYS_fcntl, AX
	SYSCALL
	TESTQ AX, AX
	JGE  moved
	INCL BP
	MOVQ (F_SCRATCH+8)(SP), DX
	CMPL BP, $1
	JEQ  retry
	MOVL $3, DX
	CMPL BP, $2
	JNE  stay
retry:
	MOVQ DX, (F_SCRATCH+0)(SP)
	JMP  again
moved:
	MOVL AX, 0(R12)
	MOVQ R14, DI
	MOVL $SYS_close, AX
	SYSCALL
	JMP  descriptordone
stay:
	MOVBLZX ROW_AFTER(BX), R11
	ANDL $KEEP_CLOEXEC, R11
	ORL  R15, R11
	JNE  descriptordone
	MOVQ R14, DI
	MOVL $F_SETFD, SI
	XORL DX, DX
	MOVL $SYS_fcntl, AX
	SYSCALL
	JMP  descriptordone
failed:
	// Another call's error that means something else here.
	MOVBLZX ROW_THEIRS(BX), R11
	TESTL R11, R11
	JEQ  finish
	NEGQ R11
	CMPQ AX, R11
	JNE  finish
	MOVBLZX ROW_OURS(BX), AX
	NEGQ AX
	JMP  finish
	// One of the calls that we add, by its own number: R11 counts from the first.
beyond:
	LEAQ -ADDED(AX), R11
	CMPQ R11, $ADDEDS
	JCS  added
	JMP  plain

	// timerfd_settime or timerfd_gettime, unless it cannot be: see
	// fdcall.AddedCalls.
former:
	TESTL R10, R10
	JNE  plain
	CMPQ DX, $0xfff
	JHI  plain
formerwait:
	MOVQ DI, R11
	SHRQ $NROPEN_SHIFT, R11
	JEQ  plain
	MOVQ DI, R11
	SARQ $12, R11
	CMPQ R11, $-1
	JEQ  plain
	CMPQ R11, $0xfffff
	JEQ  plain
	LEAQ -FORMER_INDIRECT(AX), R11

added:
	LEAQ -FRAME(SP), SP
	SAVEARGS
	ANDL $0xffff0000, CX
	CMPL R11, $2
	JCS  parameters
	SHLL $FAMILYSHIFT, R11
	LEAQ FAMILY(CX)(R11*1), BX
	MOVBLZX FAMILY_FLAGSARG(BX), R11
	MOVL F_ARGS(SP)(R11*8), DX
	MOVL FAMILY_REFUSES(BX), R11
	TESTL R11, DX
	JNE  invalid
	MOVBLZX FAMILY_MASKARG(BX), R11
	TESTL R11, R11
	JNE  mask
variant:
	MOVL DX, R11
	SHRL $19, R11 // O_CLOEXEC to Cloexec
	ANDL $1, R11
	MOVL DX, AX
	SHRL $10, AX // O_NONBLOCK to Nonblock
	ANDL $2, AX
	ORL  AX, R11
	SHRL $28, DX // O_NONSEQFD to Nonseq
	ANDL $4, DX
	ORL  DX, R11
	MOVBLZX FAMILY_GIVES(BX), AX
	ORL  AX, R11
	MOVBLZX (FAMILY_FROM+0)(BX), AX
	MOVQ F_ARGS(SP)(AX*8), DI
	MOVBLZX (FAMILY_FROM+1)(BX), AX
	MOVQ F_ARGS(SP)(AX*8), SI
	MOVBLZX (FAMILY_FROM+2)(BX), AX
	MOVQ F_ARGS(SP)(AX*8), DX
	MOVBLZX (FAMILY_FROM+3)(BX), AX
	MOVQ F_ARGS(SP)(AX*8), R10
	XORL R8, R8
	XORL R9, R9
	MOVL FAMILY_NR(BX), AX

	// AX and the argument registers hold the call to run, R11 the properties
	// that were asked for, CX the image.
nested:
	MOVBLZX HEADER_SETS(CX), BX
	BTL  R11, BX
	JCC  made
	IMULL $SETSIZE, R11
	LEAQ SETS(CX)(R11*1), R11
	CMPQ AX, $NUMBERS
	JHS  invalid
	MOVBLZX (R11)(AX*1), BX
	TESTL BX, BX
	JEQ  invalid
	CMPL BX, $LEFT
	JEQ  made
	LEAQ -NESTED(SP), SP
	LEAQ OWNTHUNK(CX), CX
	SAVEARGS
	CMPL BX, $UNCHANGED
	JEQ  unchanged
	LEAQ (NUMBERS-(1<<ROWSHIFT))(R11), CX
	MOVL BX, R11
	JMP  row
	// Where OWNTHUNK leads.
	LEAQ -(FRAME-NESTED)(SP), SP
	JMP  finish
invalid:
	MOVQ $-22, AX // EINVAL
	JMP  finish
fault:
	MOVQ F_NR(SP), AX
	CMPL AX, $NUMBERS
	JCS  made // perhaps it was the other call after all
	MOVQ $-14, AX // EFAULT
	JMP  finish

	// Make the call itself: it traps, and the supervisor adds what is missing.
made:
	MOVQ F_NR(SP), AX
	RESTOREARGS
	LEAQ FRAME(SP), SP
	JMP  plain

	// indirect(regs, params, paramslen, flags), in the order of its checks.
	// What is on the page that the program's stack pointer is on can be read;
	// elsewhere, process_vm_readv answers EFAULT where a load would be a signal.
parameters:
	MOVBLZX HEADER_SETS(CX), BX
	TESTL BX, BX
	JEQ  made // the code for these is not there yet
	TESTL R11, R11
	JNE  ringwait
	TESTL R10, R10
	JNE  invalid
	LEAQ -5(DX), R11
	CMPQ R11, $(32-4)
	JCS  syslet
	LEAQ FRAME(SP), R11
	ORQ  $0xfff, R11
	SUBQ $55, R11
	CMPQ DI, R11
	JHI  copy
	CMPQ DI, SP
	JCS  copy
	XORL R11, R11
	TESTQ DX, DX
	JEQ  copied
	CMPQ DX, $4
	JNE  copy
	LEAQ FRAME(SP), R11
	ORQ  $0xfff, R11
	SUBQ $3, R11
	CMPQ SI, R11
	JHI  copy
	CMPQ SI, SP
	JCS  copy
	MOVL 0(SI), R11
	// DI points to the call, R11 holds its file flags.
copied:
	MOVL R11, DX
	SHRL $19, R11
	ANDL $1, R11
	MOVL DX, AX
	SHRL $10, AX
	ANDL $2, AX
	ORL  AX, R11
	SHRL $28, DX
	ANDL $4, DX
	ORL  DX, R11
	MOVQ 0(DI), AX
	MOVQ 48(DI), R9
	MOVQ 40(DI), R8
	MOVQ 32(DI), R10
	MOVQ 24(DI), DX
	MOVQ 16(DI), SI
	MOVQ 8(DI), DI
	JMP  nested
copy:
	MOVL $SYS_getpid, AX
	SYSCALL
	MOVQ AX, R9
	LEAQ F_REGS(SP), R11
	MOVQ R11, (F_COPYLOCAL+0)(SP)
	MOVQ $56, (F_COPYLOCAL+8)(SP)
	MOVQ DI, (F_COPYREMOTE+0)(SP)
	MOVQ $56, (F_COPYREMOTE+8)(SP)
	MOVQ R9, DI
	LEAQ F_COPYLOCAL(SP), SI
	MOVL $1, DX
	LEAQ F_COPYREMOTE(SP), R10
	MOVL $1, R8
	XORL R9, R9
	MOVL $SYS_process_vm_readv, AX
	SYSCALL
	CMPQ AX, $56
	JNE  fault
	MOVL F_THUNK(SP), CX
	ANDL $0xffff0000, CX
	MOVQ $0, F_PARAMS(SP)
	MOVQ (F_ARGS+16)(SP), R11
	TESTQ R11, R11
	JEQ  params
	CMPQ R11, $4
	JHI  invalid
	LEAQ F_PARAMS(SP), AX
	MOVQ AX, (F_COPYLOCAL+0)(SP)
	MOVQ R11, (F_COPYLOCAL+8)(SP)
	MOVQ (F_ARGS+8)(SP), AX
	MOVQ AX, (F_COPYREMOTE+0)(SP)
	MOVQ R11, (F_COPYREMOTE+8)(SP)
	MOVL $SYS_process_vm_readv, AX
	SYSCALL
	MOVL F_THUNK(SP), CX
	ANDL $0xffff0000, CX
	CMPQ AX, (F_ARGS+16)(SP)
	JEQ  params
	// Of two errors, the number's comes first.
	MOVBLZX HEADER_SETS(CX), BX
	TESTL $1, BX
	JEQ  made
	MOVQ F_REGS(SP), AX
	CMPQ AX, $NUMBERS
	JHS  invalid
	MOVBLZX SETS(CX)(AX*1), BX
	TESTL BX, BX
	JEQ  invalid
	JMP  fault
params:
	MOVL F_PARAMS(SP), R11
	LEAQ F_REGS(SP), DI
	JMP  copied

	// paccept with a signal mask: BX points to the family, R11 is the mask's
	// argument. ppoll waits with the mask in place; then there is a connection,
	// or an error that accept will tell at once. A call that would not wait is
	// made as it is.
mask:
	CMPQ F_ARGS(SP)(R11*8), $0
	JEQ  variant
	CMPQ (F_ARGS+8)(SP)(R11*8), $8
	JNE  invalid
	MOVL $SOL_SOCKET, SI
	MOVL $SO_ACCEPTCONN, DX
	LEAQ F_OPTION(SP), R10
	LEAQ F_OPTIONLEN(SP), R8
	MOVL $4, (R8)
	MOVL $SYS_getsockopt, AX
	SYSCALL
	TESTQ AX, AX
	JNE  accept
	MOVL F_OPTION(SP), AX
	TESTL AX, AX
	JEQ  accept
	MOVL $F_GETFL, SI
	MOVL $SYS_fcntl, AX
	SYSCALL
	TESTQ AX, AX
	JLT  accept
	TESTL $O_NONBLOCK, AX
	JNE  accept
	MOVL DI, F_POLLFD(SP)
	MOVL $POLLIN, (F_POLLFD+4)(SP)
	LEAQ F_POLLFD(SP), DI
	MOVL $1, SI
	XORL DX, DX
	MOVBLZX FAMILY_MASKARG(BX), R11
	MOVQ F_ARGS(SP)(R11*8), R10
	MOVL $8, R8
	MOVL $SYS_ppoll, AX
	SYSCALL
	TESTQ AX, AX
	JLT  finish
accept:
	MOVL F_THUNK(SP), CX
	ANDL $0xffff0000, CX
	MOVBLZX FAMILY_FLAGSARG(BX), R11
	MOVL F_ARGS(SP)(R11*8), DX
	JMP  variant
	LONG $0x0b0e0d0a; LONG $0x444e4521; LONG $0x0b0e0d0a; LONG $0x444e4521

// func landing()
//
// Runs in a process that has no image yet: maps it, and makes the program's
// call, which traps and so tells the supervisor that the mapping is there and
// new; its answer says where to go on, or else it is at the call. It is entered
// with all signals blocked and the arguments of mmap, and with the program's
// registers and signal mask on the stack below the red zone, so that it needs
// nobody's help to come back.
TEXT ·landing(SB), NOSPLIT|NOFRAME, $0-0
	SYSCALL
	CMPQ AX, DI
	JNE  site // something is there, or there is no room
	MOVQ 0(SP), DI
	MOVQ 8(SP), SI
	MOVQ 16(SP), DX
	MOVQ 24(SP), R10
	MOVQ 32(SP), R8
	MOVQ 40(SP), R9
	MOVQ 48(SP), AX
	SYSCALL // LandingTold
	TESTQ AX, AX
	JLE  site
	MOVQ AX, 56(SP)
site:
	MOVL $SYS_rt_sigprocmask, AX
	MOVL $2, DI // SIG_SETMASK
	LEAQ 64(SP), SI
	XORL DX, DX
	MOVL $8, R10
	SYSCALL
	MOVQ 0(SP), DI
	MOVQ 8(SP), SI
	MOVQ 16(SP), DX
	MOVQ 24(SP), R10
	MOVQ 32(SP), R8
	MOVQ 40(SP), R9
	MOVQ 48(SP), AX
	MOVQ 56(SP), CX
	LEAQ (72+128)(SP), SP
	JMP  CX
	LONG $0x0b0e0d0a; LONG $0x444e4521; LONG $0x0b0e0d0a; LONG $0x444e4521

// func single()
//
// Makes one call for a process that has no image: entered in front of the
// call with the flags that the program did not give, and with the program's
// arguments and the address to go back to on the stack, as in landing.
TEXT ·single(SB), NOSPLIT|NOFRAME, $0-0
	SYSCALL
	CMPQ AX, $2
	JHI  back // an error, too
	// A standard stream stays inheritable.
	MOVQ AX, 48(SP)
	MOVQ AX, DI
	MOVL $F_SETFD, SI
	XORL DX, DX
	MOVL $SYS_fcntl, AX
	SYSCALL
	MOVQ 48(SP), AX
back:
	MOVQ 0(SP), DI
	MOVQ 8(SP), SI
	MOVQ 16(SP), DX
	MOVQ 24(SP), R10
	MOVQ 32(SP), R8
	MOVQ 40(SP), R9
	MOVQ 56(SP), CX
	LEAQ (72+128)(SP), SP
	JMP  CX
	LONG $0x0b0e0d0a; LONG $0x444e4521; LONG $0x0b0e0d0a; LONG $0x444e4521

TEXT ·stubAddress(SB), NOSPLIT, $0-8
	LEAQ ·stub(SB), AX
	MOVQ AX, ret+0(FP)
	RET

TEXT ·singleAddress(SB), NOSPLIT, $0-8
	LEAQ ·single(SB), AX
	MOVQ AX, ret+0(FP)
	RET

TEXT ·landingAddress(SB), NOSPLIT, $0-8
	LEAQ ·landing(SB), AX
	MOVQ AX, ret+0(FP)
	RET
