package upstream

import "syscall"

// ownGroup puts a child in a process group of its own, so that everything it
// starts can be ended with it, and lets the kernel end it when we are gone.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
