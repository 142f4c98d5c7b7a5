// Package dnssec asks recursive resolvers and says with every answer whether
// it was authenticated, how long it holds, and, without one, why there is none.
//
// DANE stands on these differences (RFC 7672 §2.1): a secure answer binds the
// sender, an insecure one does not, and a failed lookup must never be taken for
// "no such record", or whoever drops a packet could switch DANE off. The system's
// resolver library hides them, so this client speaks DNS itself. It does not
// validate: that is the work of a resolver on the same machine (unbound,
// knot-resolver, …), whose AD bit it believes only on a protected path
// (RFC 4035 §4.9.3), and only until a self-test proves that it does not
// validate (see [Client.Run]).
//
// Servers, if there are several, are not equal: as long as one is believed, only
// believed ones are asked, and a SERVFAIL outweighs an unauthenticated answer
// of another. Absence is an answer ([NoData], [NXDomain]); every error is an
// [Error] and temporary. Nothing is cached here; [Answer.TTL] says for how
// long the caller may.
package dnssec
