dnl # The second half of postseal.m4, which see: it stands below the MAILER lines.
MAILER_DEFINITIONS
dnl # The three ways into postseal, under the names that its map mailertable answers.
dnl # z: LMTP, so that each recipient has its own result. k: our own name in the
dnl # greeting is no loop. What stands behind TCP is where they connect, whatever the
dnl # mailertable says.
Mpostseal,	P=[IPC], F=mDFMuXzk, S=EnvFromSMTP/HdrFromSMTP, R=EnvToSMTP/HdrToSMTP, E=\r\n, L=2040,
		T=DNS/RFC822/SMTP, A=TCP [POSTSEAL_HOST] POSTSEAL_LMTP_PORT
Mpostseal-requiretls,	P=[IPC], F=mDFMuXzk, S=EnvFromSMTP/HdrFromSMTP, R=EnvToSMTP/HdrToSMTP, E=\r\n, L=2040,
		T=DNS/RFC822/SMTP, A=TCP [POSTSEAL_HOST] POSTSEAL_REQUIRETLS_PORT
Mpostseal-relaxed,	P=[IPC], F=mDFMuXzk, S=EnvFromSMTP/HdrFromSMTP, R=EnvToSMTP/HdrToSMTP, E=\r\n, L=2040,
		T=DNS/RFC822/SMTP, A=TCP [POSTSEAL_HOST] POSTSEAL_RELAXED_PORT

LOCAL_CONFIG
dnl # Which rules these are: "postseal doctor" looks for it.
D{postseal_rules}2
dnl # Fills the class {cert_altnames}, which the rules below need.
O SetCertAltnames=true
dnl # Takes "mx.example:.example" out of "match=mx.example:.example".
Kpostseal_match regex -a: -s2 (match=)(.*)

ifdef(`POSTSEAL_RULE_0', `dnl
dnl # In place of the map mailertable, which has one file only. No -T here either.
LOCAL_CONFIG
Ktransport socket -d5 inet:POSTSEAL_MAP_PORT@POSTSEAL_HOST

LOCAL_RULE_0
R$* < @ $+ . requiretls . invalid $* > $*	$#postseal-requiretls $@ [POSTSEAL_HOST] $: $1 < @ $2 . requiretls . invalid > $4
R$* < @ $+ . relaxed . invalid $* > $*	$#postseal-relaxed $@ [POSTSEAL_HOST] $: $1 < @ $2 . relaxed . invalid > $4
R$* < @ $+ > $*		$: < $(transport $2 $: $) > $1 < @ $2 > $3
R< postseal : $+ > $*	$#postseal $@ [POSTSEAL_HOST] $: $2
R< $* > $*		$: $2
')dnl

dnl # M: no MTA-STS with postseal itself, which verifies the MX hosts.
LOCAL_CLT_FEATURES
R[POSTSEAL_HOST] $*	$# M

dnl # Before 8.18.2 FEATURE(`sts') has three faults. It looks at the certificate once
dnl # for each connection, under the policy of the first recipient, so that others with
dnl # a policy went out unverified. Wildcard certificates never match. And a refusal at
dnl # RCPT bounces the mail, instead of deferring it, if the message has another
dnl # recipient that was bounced. So everything is judged here (RFC 8461 section 4): for
dnl # the first recipient as soon as TLS is up, where a refusal always defers, and then
dnl # for each. Rules of your own for these two stand below this include. Where Sendmail
dnl # breaks off, with an answer that is too long for instance, there is no OK, and mail waits.
LOCAL_TLS_SERVER
R$*			$: $1 $| $>Postseal_sts $&{rcpt_addr}
R$* $| $# $*		$# $2
R$* $| OK		$: $1
R$* $| $*		$#error $@ 4.7.0 $: "450 STS rules failed"

LOCAL_TLS_RCPT
R$*			$: $1 $| $>Postseal_sts $1
R$* $| $# $*		$# $2
R$* $| OK		$: $1
R$* $| $*		$#error $@ 4.7.0 $: "450 STS rules failed"

dnl # The argument is a recipient. Without {rcpt_addr} MTA-STS is off, as above. Of the
dnl # rulesets that are called here only those are not our own that no version of Sendmail
dnl # has renamed.
SPostseal_sts
R$*			$: < $&{rcpt_addr} > $1
R< > $*			$@ OK
R< $* > $*		$: $>CanonAddr $2
R$* < @ $+ > $*		$: < $2 >
R< $+ . >		$: < $1 >
R< $+ >			$: < $(sts $1 $: $) >
R< $* <TMPF> >		$#error $@ 4.7.0 $: "450 STS lookup temp fail"
R< secure $* >		$: $1 $| verify $&{verify}
dnl # TRUSTED is DANE, in 8.18 and later. Recipients that are under it have no {rcpt_addr};
dnl # this is one who is not, and a session of another.
R$* $| verify TRUSTED	$: $1 $| NAMED
R$* $| verify OK	$: $1 $| $>Postseal_name $&{server_name}
R$* $| verify $*	$: $1 $| $>TLS_connection $2 $| <TEMP+VERIFY:128>
R$* $| $# $*		$# $2
R$* servername=hostname $| NAMED	$: $1 $| NAMED
R$* $| NAMED		$@ $>Postseal_listed $(postseal_match $1 $: : $)
R$* $| $*		$@ FAILED
R$*			$@ OK			there is no policy

dnl # Is the MX host a name of its certificate, or is a wildcard for its first label?
SPostseal_name
R$+ .			$1
R$={cert_altnames}	$@ NAMED
R$- . $+		$: *. $2
R$={cert_altnames}	$@ NAMED
R$*			$#error $@ 4.7.0 $: "450 STS " $&{server_name} " not listed in SANs"

dnl # Is the MX host one of the policy's, or does a pattern stand for its first label? The
dnl # argument is the list, with a colon at the end.
SPostseal_listed
R$*			$: : $1 $| $&{server_name}
R$* $| $+ .		$: $1 $| $2
R$* $| $+		$: $(macro {postseal_mx} $@ $2 $) $1 $| $2
R$* : $&{postseal_mx} : $* $| $*	$@ OK
R$* $| $- . $+		$: $(macro {postseal_mx} $@ . $3 $) $1
R$* : $&{postseal_mx} : $*	$@ OK
R$*			$#error $@ 4.7.0 $: "450 STS " $&{server_name} " not found in MX list"
