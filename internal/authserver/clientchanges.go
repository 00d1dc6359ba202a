package authserver

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
)

// A Change is one member of what a client says of itself that is not any more what it
// was (ux.md §9.9).
type Change struct {
	Member  string   `json:"member"`
	Removed []string `json:"removed,omitempty" jsonschema:"values that are gone; what is no text is as JSON"`
	Added   []string `json:"added,omitempty" jsonschema:"values that are new"`
}

// changes are the members in which two descriptions differ, by name. The order of a
// list means nothing.
func changes(before, now string) (all []Change, err error) {
	if before == "" || before == now {
		return nil, nil
	}
	var was, is map[string]json.RawMessage
	if err := json.Unmarshal([]byte(before), &was); err != nil {
		return nil, err
	}
	if err := json.Unmarshal([]byte(now), &is); err != nil {
		return nil, err
	}
	members := maps.Clone(was)
	maps.Copy(members, is)
	for _, member := range slices.Sorted(maps.Keys(members)) {
		old, new := values(was[member]), values(is[member])
		c := Change{Member: member, Removed: lacking(old, new), Added: lacking(new, old)}
		if c.Removed != nil || c.Added != nil {
			all = append(all, c)
		}
	}
	return all, nil
}

// values are the texts of a member: of a list each, of what is no text its JSON.
func values(member json.RawMessage) (texts []string) {
	var list []json.RawMessage
	if len(member) == 0 {
		return nil
	}
	if json.Unmarshal(member, &list) != nil {
		list = []json.RawMessage{member}
	}
	for _, value := range list {
		var text string
		if json.Unmarshal(value, &text) != nil {
			var compact bytes.Buffer
			_ = json.Compact(&compact, value) // it was read as JSON
			text = compact.String()
		}
		texts = append(texts, text)
	}
	return texts
}

// lacking are the texts that others do not have.
func lacking(texts, others []string) (rest []string) {
	for _, text := range texts {
		if !slices.Contains(others, text) {
			rest = append(rest, text)
		}
	}
	return rest
}
