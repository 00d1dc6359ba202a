//go:build unix

package upstream

import (
	"os"
	"syscall"
)

// terminate asks the group of a child to end. A group that has ended is no error.
func terminate(p *os.Process) { _ = syscall.Kill(-p.Pid, syscall.SIGTERM) }

// kill ends the group of a child.
func kill(p *os.Process) { _ = syscall.Kill(-p.Pid, syscall.SIGKILL) }
