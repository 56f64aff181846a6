package listener

import (
	"errors"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The requests' numbers are those of x/sys, and the structures have the sizes
// that the kernel says.
func TestInterface(t *testing.T) {
	for _, tt := range []struct {
		name      string
		got, want uint64
	}{
		{"SECCOMP_IOCTL_NOTIF_RECV", notifRecv, unix.SECCOMP_IOCTL_NOTIF_RECV},
		{"SECCOMP_IOCTL_NOTIF_SEND", notifSend, unix.SECCOMP_IOCTL_NOTIF_SEND},
		{"SECCOMP_IOCTL_NOTIF_ID_VALID", notifIDValid, unix.SECCOMP_IOCTL_NOTIF_ID_VALID},
		{"SECCOMP_IOCTL_NOTIF_SET_FLAGS", notifSetFlags, unix.SECCOMP_IOCTL_NOTIF_SET_FLAGS},
	} {
		if tt.got != tt.want {
			t.Errorf("%s is %#x, want %#x", tt.name, tt.got, tt.want)
		}
	}
	var sizes struct{ notif, resp, data uint16 }
	const getNotifSizes = 3 // SECCOMP_GET_NOTIF_SIZES
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, getNotifSizes, 0, uintptr(unsafe.Pointer(&sizes))); errno != 0 {
		t.Fatal(errno)
	}
	if got := unsafe.Sizeof(Notification{}); got != uintptr(sizes.notif) {
		t.Errorf("struct seccomp_notif has %d bytes, ours %d", sizes.notif, got)
	}
	if got := unsafe.Sizeof(response{}); got != uintptr(sizes.resp) {
		t.Errorf("struct seccomp_notif_resp has %d bytes, ours %d", sizes.resp, got)
	}
}

func TestNoListener(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	l := New(r)
	defer l.Close()
	var n Notification
	if err := l.Receive(&n); !errors.Is(err, unix.ENOTTY) {
		t.Errorf("received from a pipe: %v", err)
	}
	if err := l.Continue(1); !errors.Is(err, unix.ENOTTY) {
		t.Errorf("answered a pipe: %v", err)
	}
	if l.Valid(1) {
		t.Error("a pipe's notification is valid")
	}
}
