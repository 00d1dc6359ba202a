package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

var (
	notRunning = problem.Code{
		Name: "SERVER_NOT_RUNNING", Kind: problem.Unavailable,
		Why: "nothing answers on its admin socket",
		Fix: "gatehouse serve",
	}
	answerUnreadable = problem.Code{
		Name: "ANSWER_UNREADABLE", Kind: problem.Unavailable,
		Why: "server and command may be of different versions",
		Fix: "gatehouse version; restart the server with this one",
	}
)

// maxAnswer bounds what the server may answer, in bytes.
const maxAnswer = 64 << 20

// ask calls a tool of the server of this computer, through its admin socket, and
// decodes what it answers into out.
func (c *cli) ask(ctx context.Context, tool string, in, out any) error {
	dir, err := c.dir()
	if err != nil {
		return err
	}
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	hc := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return app.DialSocket(ctx, dir) },
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://admin/mcp/tool/"+tool, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := hc.Do(req)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return notRunning.New("can't reach the server of %s", dir).Because(err)
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return answerUnreadable.New("the server broke off its answer").Because(err)
	}
	return understand(res.StatusCode, answer, out)
}

func understand(status int, answer []byte, out any) error {
	if status == http.StatusOK {
		if err := json.Unmarshal(answer, out); err != nil {
			return answerUnreadable.New("can't read what the server answers").Because(err)
		}
		return nil
	}
	var no struct {
		Error problem.Wire `json:"error"`
	}
	if json.Unmarshal(answer, &no) != nil || no.Error.Code == "" {
		return answerUnreadable.New("can't read what the server answers").WithWhy("it answers with status %d", status)
	}
	no.Error.Status = status
	return &remote{no.Error}
}

// dir is the data folder, found as gatehouse serve finds it.
func (c *cli) dir() (string, error) {
	set := c.chosen()
	if c.dataDir != "" {
		set["data-dir"] = c.dataDir
	}
	return app.DataDir(set, c.environ)
}
