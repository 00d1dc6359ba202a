package client

import (
	"os/exec"
	"runtime"
)

// openers are the programs that open an address in the person's browser. The
// address is an argument of its own; no shell reads it.
var openers = map[string][]string{
	"darwin":  {"open"},
	"windows": {"rundll32", "url.dll,FileProtocolHandler"},
}

// OpenBrowser opens an address in the person's browser and does not wait for it.
// Only https is opened, and http on this computer.
func OpenBrowser(address string) error {
	u, err := safeURL(address, true)
	if err != nil {
		return addressInvalid.fail("can't open the address in a browser").because(err)
	}
	opener := openers[runtime.GOOS]
	if opener == nil {
		opener = []string{"xdg-open"}
	}
	cmd := exec.Command(opener[0], append(opener[1:], u.String())...)
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Process.Release()
}
