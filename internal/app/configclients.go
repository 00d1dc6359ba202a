package app

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-mcp/gatehouse/internal/authserver"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
)

// documents takes the documents of apps that the file pins: names of files, or the
// members themselves. They are judged when all settings are known.
func (l *loading) documents(s setting, n *yaml.Node) {
	if isNull(n) {
		return
	}
	l.CIMDDocuments = map[string]string{}
	for address, value := range l.pairs(n, s.key+".") {
		key := s.key + "." + address.Value
		l.Source.origins[key] = l.at(address)
		if value.Kind == yaml.MappingNode {
			var members map[string]any
			text, err := []byte(nil), value.Decode(&members)
			if err == nil {
				text, err = json.Marshal(members)
			}
			if err != nil {
				l.wrongAt(value, key, " can't be written as JSON")
				continue
			}
			l.CIMDDocuments[address.Value] = string(text)
			continue
		}
		names, _, ok := l.texts(value, key)
		if !ok {
			continue
		}
		if len(names) != 1 {
			l.wrongAt(value, key, ": it is the name of one file, or the members of the document")
			continue
		}
		text, err := readFile(l.beside("_file", names[0]))
		if err != nil {
			l.wrongAt(value, key, fmt.Sprintf(": %s can't be read: %v", names[0], cause(err)))
			continue
		}
		l.CIMDDocuments[address.Value] = string(text)
	}
}

// clients takes the clients that are known because they stand in the file.
func (l *loading) clients(s setting, n *yaml.Node) {
	if isNull(n) {
		return
	}
	l.Clients = map[string]authserver.FileClient{}
	for id, value := range l.pairs(n, s.key+".") {
		key := s.key + "." + id.Value
		l.Source.origins[key] = l.at(id)
		before := len(l.faults)
		if c := l.client(value, key); len(l.faults) == before {
			l.Clients[id.Value] = c
		}
	}
}

func (l *loading) client(n *yaml.Node, key string) (c authserver.FileClient) {
	yes := map[string]*bool{"dpop_bound_access_tokens": &c.Bound, "require_pushed_authorization_requests": &c.PushedOnly}
	members := append([]string{"name", "redirect_uris", "secret", "secret_file"}, slices.Sorted(maps.Keys(yes))...)
	for member, value := range l.pairs(n, key+".") {
		path := key + "." + member.Value
		if !slices.Contains(members, member.Value) {
			l.wrongAt(member, path, " is not a setting"+didYouMean(member.Value, members))
			continue
		}
		texts, made, ok := l.texts(value, path)
		switch {
		case !ok:
		case member.Value == "redirect_uris":
			c.Redirects = texts
		case len(texts) != 1:
			l.wrongAt(value, path, ": it takes one value")
		case member.Value == "name":
			c.Name = texts[0]
		case yes[member.Value] != nil && texts[0] != "true" && texts[0] != "false":
			l.wrongAt(value, path, ": it is either true or false")
		case yes[member.Value] != nil:
			*yes[member.Value] = texts[0] == "true"
		case member.Value == "secret" && !made:
			l.wrongAt(value, path, ": a secret does not stand in the file itself; say ${env:NAME} or ${file:NAME}, or use secret_file")
		case member.Value == "secret":
			c.Secret = seal.Hide(texts[0])
		default:
			text, err := readFile(l.beside("_file", texts[0]))
			if err != nil {
				l.wrongAt(value, path, fmt.Sprintf(": %s can't be read: %v", texts[0], cause(err)))
				continue
			}
			c.Secret = seal.Hide(strings.TrimSpace(string(text)))
		}
	}
	return c
}

// judgeClients refuses clients that could not be used.
func (l *loading) judgeClients() {
	for _, id := range slices.Sorted(maps.Keys(l.Clients)) {
		if why := l.Clients[id].Check(id, l.RedirectSchemes); why != "" {
			l.wrong("clients."+id, why)
		}
	}
}

// showClients are those of the file, without their secrets.
func (c Config) showClients() (all []Value) {
	for _, id := range slices.Sorted(maps.Keys(c.Clients)) {
		key := "clients." + id
		shown := c.Clients[id].Name + " " + strings.Join(c.Clients[id].Redirects, " ")
		if c.Clients[id].Secret.Reveal() != "" {
			shown += " secret=" + masked
		}
		if c.Clients[id].Bound {
			shown += " dpop_bound_access_tokens=true"
		}
		if c.Clients[id].PushedOnly {
			shown += " require_pushed_authorization_requests=true"
		}
		all = append(all, Value{key, shown, c.Source.origins[key]})
	}
	return all
}

// judgeDocuments refuses documents that could not be used, and hosts that are none.
func (l *loading) judgeDocuments() {
	for _, address := range slices.Sorted(maps.Keys(l.CIMDDocuments)) {
		_, fault := oauth.CheckDocument(address)
		if fault == nil {
			_, fault = oauth.ParseDocument(address, []byte(l.CIMDDocuments[address]), l.RedirectSchemes)
		}
		if fault != nil {
			l.wrong("cimd_documents."+address, fault.Description)
		}
	}
	for _, host := range l.CIMDAllow {
		if at, fault := oauth.CheckDocument("https://" + host + "/"); fault != nil || at != host {
			l.wrong("cimd_allow", host+" is not the name of a host, like app.example.org")
		}
	}
	switch {
	case l.CIMD == "off" && len(l.CIMDDocuments) > 0:
		l.wrong("cimd", "with off the documents in cimd_documents are not used; say allowlist, or leave them out")
	case l.CIMD != "allowlist" && len(l.CIMDAllow) > 0:
		l.wrong("cimd_allow", "it counts only if cimd is allowlist")
	}
}

// clientDocuments says which metadata documents are clients.
func (c Config) clientDocuments() authserver.Documents {
	switch c.CIMD {
	case "open":
		return authserver.Documents{Any: true, Pinned: c.CIMDDocuments}
	case "allowlist":
		return authserver.Documents{Hosts: c.CIMDAllow, Pinned: c.CIMDDocuments}
	}
	return authserver.Documents{}
}

// showDocuments are the pinned ones, each with its name.
func (c Config) showDocuments() (all []Value) {
	for _, address := range slices.Sorted(maps.Keys(c.CIMDDocuments)) {
		key := "cimd_documents." + address
		all = append(all, Value{key, strings.TrimSpace(c.CIMDDocuments[address]), c.Source.origins[key]})
	}
	return all
}
