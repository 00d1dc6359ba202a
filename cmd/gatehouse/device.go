package main

import (
	"context"
	"runtime"
	"time"

	"github.com/gatehouse-mcp/gatehouse/client"
)

// hasScreen reports whether a browser that is opened here is seen by who sits at the
// terminal.
func (c *cli) hasScreen() bool {
	if c.getenv("SSH_CONNECTION") != "" || c.getenv("SSH_TTY") != "" {
		return false
	}
	return runtime.GOOS == "darwin" || runtime.GOOS == "windows" || c.getenv("DISPLAY") != "" || c.getenv("WAYLAND_DISPLAY") != ""
}

// loginDevice signs in with a code that is typed on another device (R914).
func (c *cli) loginDevice(ctx context.Context, cl *client.Client, server string, o client.LoginOptions) error {
	l, err := cl.LoginDevice(ctx, server, o, c.showCode)
	if err != nil {
		return err
	}
	return c.signedIn(ctx, cl, l)
}

// showCode prints what the person needs on the other device.
func (c *cli) showCode(d client.DeviceCode) {
	c.talk("On any device with a browser, open\n  %s\nand enter the code\n  %s\nIt is good for %d minutes. Waiting (Ctrl+C stops) …",
		oneLine(d.URL), oneLine(d.Code), int(time.Until(d.Expires).Round(time.Minute)/time.Minute))
}
