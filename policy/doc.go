// Package policy decides which TLS a destination of mail requires, and why.
//
// Two protocols let a domain demand authenticated TLS of those who send to it:
// DANE (RFC 7672), whose proof is DNSSEC, and MTA-STS (RFC 8461), whose proof is
// the web PKI. The [Engine] asks both, weighs them with the operator's
// overrides, and remembers the outcome for as long as the records say. A
// decision knows three answers: a requirement, no requirement, and "it cannot be
// told", on which mail waits (RFC 7672 §2.1.2).
//
// What is done when something fails:
//
//	DNS lookup for DANE fails             temporary failure; but MTA-STS enforce, if an unexpired
//	                                      policy is known and DANE was last proven absent
//	TXT lookup fails, policy known        the known policy, until its max_age (RFC 8461 §3.3)
//	TXT lookup fails, none known          no policy, or temporary failure if Defer is set; asked
//	                                      again after 30 s
//	TXT gone, malformed or ambiguous      the known policy until its max_age, else none
//	policy cannot be fetched              the known policy until its max_age, else none;
//	                                      fetched again after 5 min, then less and less often
//	policy invalid                        the same
//	DANE not known when the caller must   temporary failure, as above; the lookup goes on behind
//	have its answer
//	MTA-STS not known by then             no policy, or temporary failure if Defer is set
//	resolver proven not to validate       no DANE; temporary failure for domains that were proven
//	                                      to have DANE within the last 7 days
//	resolver found to validate or not     what was learnt before is asked for again
//	record on disk damaged                that destination is discovered anew
//	state on disk lost                    everything is discovered anew
//
// DANE and MTA-STS age separately, each by its own TTL. What is in memory is
// answered from there. What is not is read from disk behind the caller, beside
// which a lookup is long. A disk that stalls is a lookup that does not end in
// time: a policy known in memory holds, DANE not known is a temporary failure, and
// a first contact is one whose discovery is not done.
package policy
