// Package gateway is Lockstep's front door on the network: one set of host
// names, reached as plain HTTP, as TLS by server name and as an HTTP proxy.
//
// Input: connections on the listeners given to [Gateway.Serve], and handlers
// given to [Gateway.Route] by host name. Output: each request handed to the
// handler of its host, as if that handler were the real service of that name;
// requests of the proxy for all other hosts are tunnelled where the listener's
// [Options] allow it.
//
// Invariants: a certificate is only made for a routed host; a listener whose
// Options.Tunnel is false never dials out; handlers see a Host without the
// scheme's default port, an X-Forwarded-Proto that only the gateway has set,
// and no hop-by-hop header of the proxy; every wait has a time-out and every
// goroutine ends with the context of its Serve.
//
// Start reading at [New], then [Gateway.Serve] and [OpenCA].
package gateway
