package forge

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // GitHub's older signature is SHA-1
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	hookTimeout     = 10 * time.Second // as on GitHub
	maxHookSenders  = 4                // hooks that are sent to at one time
	maxHookResponse = 64 << 10         // of an answer that is kept, in bytes
)

// delivery is one event on its way to one hook.
type delivery struct {
	id, hook    int64
	guid, event string
	action      string
	created     time.Time
	again       bool
	pending     bool
	attempts    int
	code        int
	message     string
	took        time.Duration
	payload     []byte
	request     map[string]string // headers
	response    map[string]string
	body        string
	url         string
}

const deliveryColumns = `id, hook, guid, event, action, created, redelivery, pending, attempts, code, message, took, payload, request, response, body`

func (f *Forge) deliveries(ctx context.Context, where string, args ...any) ([]*delivery, error) {
	rows, err := f.db.QueryContext(ctx, `select `+deliveryColumns+` from delivery where `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var all []*delivery
	for rows.Next() {
		d := &delivery{}
		var created, took int64
		var request, response string
		if err := rows.Scan(&d.id, &d.hook, &d.guid, &d.event, &d.action, &created, &d.again, &d.pending, &d.attempts, &d.code, &d.message, &took,
			&d.payload, &request, &response, &d.body); err != nil {
			return nil, fmt.Errorf("forge state: %w", err)
		}
		d.created, d.took = time.UnixMicro(created).UTC(), time.Duration(took)*time.Millisecond
		if err := errors.Join(json.Unmarshal([]byte(request), &d.request), json.Unmarshal([]byte(response), &d.response)); err != nil {
			return nil, fmt.Errorf("forge state: %w", err)
		}
		all = append(all, d)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	return all, nil
}

// sendDeliveries sends what is due, one delivery of a hook at a time, until ctx ends.
func (f *Forge) sendDeliveries(ctx context.Context) {
	var senders sync.WaitGroup
	defer senders.Wait()
	client := f.hookClient(false)
	insecure := f.hookClient(true)
	defer client.CloseIdleConnections()
	defer insecure.CloseIdleConnections()
	done := make(chan int64, maxHookSenders)
	busy := map[int64]bool{}
	for ctx.Err() == nil {
		queued := f.queued.wait()
		if len(busy) < maxHookSenders {
			d, h, err := f.nextDelivery(ctx, busy)
			if err != nil && !f.pause(ctx, fmt.Errorf("webhooks: %w", err)) {
				return
			}
			if d != nil {
				busy[h.id] = true
				senders.Go(func() {
					c := client
					if h.insecure {
						c = insecure
					}
					f.deliver(ctx, c, h, d)
					done <- h.id
				})
				continue
			}
		}
		wait := time.Hour
		if due, ok, err := f.nextDue(ctx); err == nil && ok && len(busy) == 0 {
			wait = max(0, due.Sub(f.deps.Now())) + time.Millisecond
		}
		later := time.NewTimer(wait)
		select {
		case id := <-done:
			delete(busy, id)
		case <-queued:
		case <-later.C:
		case <-ctx.Done():
		}
		later.Stop()
	}
}

// nextDelivery is the oldest that is due, of a hook that is not busy; nil without one.
func (f *Forge) nextDelivery(ctx context.Context, busy map[int64]bool) (*delivery, *hook, error) {
	rows, err := f.db.QueryContext(ctx, `select hook from delivery where pending = 1 and due <= ? group by hook order by min(id) limit 1000`, f.deps.Now().UnixMicro())
	if err != nil {
		return nil, nil, err
	}
	ids, err := scanStrings(rows)
	if err != nil {
		return nil, nil, err
	}
	for _, text := range ids {
		id, err := strconv.ParseInt(text, 10, 64)
		if err != nil || busy[id] {
			continue
		}
		hooks, err := f.hooksOf(ctx, `id = ?`, id)
		if err != nil {
			return nil, nil, err
		}
		if len(hooks) == 0 || !hooks[0].active {
			if _, err := f.db.ExecContext(ctx, `update delivery set pending = 0, message = 'the hook is gone or not active' where hook = ? and pending = 1`, id); err != nil {
				return nil, nil, err
			}
			continue
		}
		all, err := f.deliveries(ctx, `hook = ? and pending = 1 and due <= ? order by id limit 1`, id, f.deps.Now().UnixMicro())
		if err != nil {
			return nil, nil, err
		}
		if len(all) > 0 {
			return all[0], hooks[0], nil
		}
	}
	return nil, nil, nil
}

// deliver makes one attempt and stores what came of it.
func (f *Forge) deliver(ctx context.Context, client *http.Client, h *hook, d *delivery) {
	start := time.Now()
	again := f.attempt(ctx, client, h, d)
	if ctx.Err() != nil {
		return // the next start makes the attempt
	}
	d.took = time.Since(start)
	d.attempts++
	d.pending = again && d.attempts < maxAttempts
	// 5 s, 20 s, 80 s, 320 s
	due := f.deps.Now().Add(f.cfg.HookRetry << (2 * (d.attempts - 1)))
	request, _ := json.Marshal(d.request)
	response, _ := json.Marshal(d.response)
	_, err := f.db.ExecContext(ctx, `update delivery set pending = ?, attempts = ?, due = ?, code = ?, message = ?, took = ?, request = ?, response = ?, body = ? where id = ?`,
		d.pending, d.attempts, due.UnixMicro(), d.code, d.message, d.took.Milliseconds(), string(request), string(response), d.body, d.id)
	if err == nil {
		_, err = f.db.ExecContext(ctx, `update hook set last_code = ?, last_message = ? where id = ?`, d.code, d.message, h.id)
	}
	if err != nil && ctx.Err() == nil {
		f.log.Warn("what came of a webhook can't be stored; it may be sent again", "hook", h.id, "error", err)
		f.pause(ctx, err)
	}
	if d.code/100 != 2 {
		f.log.Info("webhook was not taken", "repo", h.repo, "hook", h.id, "event", d.event, "code", d.code, "reason", d.message, "attempt", d.attempts, "again", d.pending)
	}
}

// attempt sends a delivery and says whether to try again.
func (f *Forge) attempt(ctx context.Context, client *http.Client, h *hook, d *delivery) (again bool) {
	d.code, d.message, d.body, d.response = 0, "", "", map[string]string{}
	req, err := f.hookRequest(ctx, h, d)
	if err != nil {
		d.message = err.Error()
		return false
	}
	res, err := client.Do(req)
	if err != nil {
		d.message = "failed to connect to host"
		var u *url.Error
		if errors.As(err, &u) {
			d.message += ": " + cut(u.Err.Error(), 300) // without the address, which may hold a key
		}
		return !errors.Is(err, errPrivateSink)
	}
	defer func() { _ = res.Body.Close() }()
	body, _ := io.ReadAll(io.LimitReader(res.Body, maxHookResponse))
	d.code, d.message, d.body = res.StatusCode, http.StatusText(res.StatusCode), string(body)
	if d.code/100 == 2 {
		d.message = "OK"
	}
	for name := range res.Header {
		if len(d.response) < 50 {
			d.response[name] = cut(res.Header.Get(name), 1000)
		}
	}
	return d.code >= 500 || d.code == http.StatusTooManyRequests
}

// hookRequest is the request of a delivery, signed.
func (f *Forge) hookRequest(ctx context.Context, h *hook, d *delivery) (*http.Request, error) {
	if err := f.checkSink(h.url); err != nil {
		return nil, err
	}
	body, kind := d.payload, "application/json"
	if h.form {
		body, kind = []byte(url.Values{"payload": {string(d.payload)}}.Encode()), "application/x-www-form-urlencoded"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("the address can't be asked: %w", err)
	}
	d.request = map[string]string{
		"Accept": "*/*", "Content-Type": kind, "User-Agent": "GitHub-Hookshot/lockstep",
		"X-GitHub-Delivery": d.guid, "X-GitHub-Event": d.event, "X-GitHub-Hook-ID": strconv.FormatInt(h.id, 10),
		"X-GitHub-Hook-Installation-Target-Type": "repository",
	}
	if repo, err := f.find(ctx, h.repo); err == nil {
		d.request["X-GitHub-Hook-Installation-Target-ID"] = strconv.FormatInt(repo.id, 10)
	}
	secret, err := f.unseal(h.secret)
	if err != nil {
		return nil, err
	}
	if len(secret) > 0 {
		d.request["X-Hub-Signature-256"] = "sha256=" + sign(sha256.New, secret, body)
		d.request["X-Hub-Signature"] = "sha1=" + sign(sha1.New, secret, body)
	}
	for name, value := range d.request {
		req.Header.Set(name, value)
	}
	return req, nil
}

func sign(with func() hash.Hash, secret, body []byte) string {
	mac := hmac.New(with, secret)
	_, _ = mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

var errPrivateSink = errors.New("this address is private to Lockstep: hooks may not go there")

// hookClient asks directly, follows no redirects, and dials no private address, whatever name
// led to it.
func (f *Forge) hookClient(insecure bool) *http.Client {
	dialer := &net.Dialer{Timeout: hookTimeout, Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("%s: %w", address, err)
		}
		ip := at.Addr().Unmap()
		if ip.IsLinkLocalUnicast() || ip.IsUnspecified() || ip.IsMulticast() {
			return errPrivateSink
		}
		for _, private := range f.cfg.privateSinks {
			if private.addr.Contains(ip) && (private.port == 0 || private.port == at.Port()) {
				return errPrivateSink
			}
		}
		return nil
	}}
	return &http.Client{
		Timeout:       hookTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSHandshakeTimeout: hookTimeout, IdleConnTimeout: 30 * time.Second, MaxIdleConnsPerHost: 1, ForceAttemptHTTP2: true,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: insecure, MinVersion: tls.VersionTLS12}, //nolint:gosec // the hook's owner asked for it
		},
	}
}

// privateSink is where no hook goes. Port 0 is every port.
type privateSink struct {
	addr netip.Prefix
	port uint16
}

// parseSink reads "127.0.0.1:8080", "10.1.0.0/16" or "10.1.0.1".
func parseSink(text string) (privateSink, error) {
	if at, err := netip.ParseAddrPort(text); err == nil {
		return privateSink{netip.PrefixFrom(at.Addr(), at.Addr().BitLen()), at.Port()}, nil
	}
	if addr, err := netip.ParseAddr(text); err == nil {
		return privateSink{netip.PrefixFrom(addr, addr.BitLen()), 0}, nil
	}
	prefix, err := netip.ParsePrefix(text)
	return privateSink{prefix, 0}, err
}
