//go:build unix && !linux

package upstream

import "syscall"

// ownGroup puts a child in a process group of its own, so that everything it
// starts can be ended with it. When we are gone its input ends.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
