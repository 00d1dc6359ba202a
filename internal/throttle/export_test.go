package throttle

// Counters is how many are kept.
func (t *Throttle) Counters() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.counts)
}
