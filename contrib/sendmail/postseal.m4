dnl # Sendmail 8.17 and later beside postseal: MTA-STS, DANE, REQUIRETLS and
dnl # TLS-Required: No. Two lines of sendmail.mc do it, one above the MAILER lines
dnl # and one below, then build sendmail.cf and restart:
dnl #
dnl #     include(`/usr/share/postseal/sendmail/postseal.m4')dnl
dnl #     MAILER(`local')dnl
dnl #     MAILER(`smtp')dnl
dnl #     include(`/usr/share/postseal/sendmail/postseal_rules.m4')dnl
dnl #
dnl # ("postseal setup sendmail" puts them in, and what follows),
dnl # and in postseal.toml, for Sendmail before 8.18, which has no DANE:
dnl #
dnl #     [host]
dnl #     dane = false
dnl #     [milter]
dnl #     listen = ["tcp:127.0.0.1:8462"]
dnl #     route = "recipient"
dnl #     [delivery]
dnl #     listen = ["tcp:127.0.0.1:8463"]
dnl #     requiretls_listen = ["tcp:127.0.0.1:8465"]
dnl #     relaxed_listen = ["tcp:127.0.0.1:8466"]
dnl #     local_domains = ["example.org"]            what stands in local-host-names
dnl #     local_relay = "tcp:127.0.0.1:8467"         opened by define(`POSTSEAL_LOCAL_PORT', `8467')
dnl #
dnl # Sendmail 8.18 does DANE, with a sendmail.cf that was built with its own macros, not with
dnl # those of 8.17: define(`confDANE', `true') and host.dane = true. An alias or
dnl # virtual address that leads out of this host loses the tag of its message.
dnl #
dnl # Sendmail must be built with SOCKETMAP, MILTER, STARTTLS, _FFR_MTA_STS and
dnl # _FFR_TLS_ALTNAMES, which Debian's is: sendmail -d0.13 -bt </dev/null
dnl #
dnl # Whatever follows can be set before the include line by a define of your own.
divert(-1)
ifdef(`POSTSEAL_HOST', `', `define(`POSTSEAL_HOST', `127.0.0.1')')
ifdef(`POSTSEAL_MAP_PORT', `', `define(`POSTSEAL_MAP_PORT', `8461')')
ifdef(`POSTSEAL_MILTER_PORT', `', `define(`POSTSEAL_MILTER_PORT', `8462')')
ifdef(`POSTSEAL_LMTP_PORT', `', `define(`POSTSEAL_LMTP_PORT', `8463')')
ifdef(`POSTSEAL_REQUIRETLS_PORT', `', `define(`POSTSEAL_REQUIRETLS_PORT', `8465')')
ifdef(`POSTSEAL_RELAXED_PORT', `', `define(`POSTSEAL_RELAXED_PORT', `8466')')
divert(0)dnl
dnl # Whom to believe. Without it every certificate fails, and with it all mail to
dnl # domains with an MTA-STS policy. Sendmail reads neither if one is missing.
ifdef(`confCACERT', `', `define(`confCACERT', `/etc/ssl/certs/ca-certificates.crt')')dnl
ifdef(`confCACERT_PATH', `', `define(`confCACERT_PATH', `/etc/ssl/certs')')dnl
dnl # No connection waits for the next message, and each has a process of its own. The
dnl # names in a certificate are known of the last handshake only, and a host that was no
dnl # good for one domain would be left out for all others.
define(`confMCI_CACHE_SIZE', `0')dnl
define(`confSEPARATE_PROC', `True')dnl
dnl # What TLS reports are counted from ([[reporting.log]], format = "sendmail"): 9, the
dnl # default, logs that a certificate failed; 12 also why.
define(`confLOG_LEVEL', `12')dnl
dnl # The policy of each destination. -T<TMPF>: no answer defers the mail. The rules
dnl # below do what NO_SAN_TST leaves out: they know wildcard certificates.
FEATURE(`sts', `socket -d5 -T<TMPF> inet:'POSTSEAL_MAP_PORT`@'POSTSEAL_HOST, `NO_SAN_TST')dnl
dnl # Which mail goes out through postseal: what Sendmail cannot do, and what the
dnl # milter has tagged. There must be no -T here: while postseal is down it would
dnl # reject all recipients for good (553 Unbalanced '<'); without it they wait.
dnl # If you have a mailertable already, define(`POSTSEAL_RULE_0'): then rules ask the
dnl # map transport instead, before your table is looked at. A smart host is in nobody's
dnl # policy: mail that goes to one, by a table or SMART_HOST, waits if its domain has MTA-STS.
ifdef(`POSTSEAL_RULE_0', `', `FEATURE(`mailertable', `socket -d5 inet:'POSTSEAL_MAP_PORT`@'POSTSEAL_HOST)dnl
')dnl
dnl # The milter that tags messages. F=T: mail waits at the client while it is down,
dnl # since a message that requires TLS would go out untagged. It comes after all
dnl # other filters, so none can change its tags: keep this include below theirs.
INPUT_MAIL_FILTER(`postseal', `S=inet:'POSTSEAL_MILTER_PORT`@'POSTSEAL_HOST`, F=T, T=C:10s;S:10s;R:30s;E:60s')dnl
dnl # A way back for the local recipients of tagged messages, past the milter.
ifdef(`POSTSEAL_LOCAL_PORT', `DAEMON_OPTIONS(`Name=MTA-postseal, Family=inet, Addr='POSTSEAL_HOST`, Port='POSTSEAL_LOCAL_PORT`, InputMailFilters=')dnl
')dnl
