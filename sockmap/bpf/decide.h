/* One connection, one answer: the same question is asked by the connect hooks, sk_lookup and the pairing. */

/* A SYN flood at a closed port must not become a flood of log lines; what is not told is still counted. */
#define TOLD_PER_SECOND 100

/* Of all endpoints: a quarter of the ring buffer, so that audits never push out denials or who asks for credit. */
#define AUDITS_TOLD_PER_SECOND 1000

/* Revisions that may come in force while one question is asked; more in those microseconds is no node's life. */
#define REVISIONS_WAITED_FOR 4

struct verdict {
    u32 action, identity;
    bool by_policy; /* false: no revision knows this endpoint */
};

static inline u32 generation_in_force(void) {
    u32 zero = 0;
    struct control *c = control.lookup(&zero);
    return c ? *(volatile u32 *)&c->generation : 0;
}

static inline u32 identity_of(u32 generation, const struct address *peer) {
    struct identity_key key = {};
    key.prefix_length = 32 + 128;
    key.generation = generation;
    key.address = *peer;
    u32 *identity = identities.lookup(&key);
    return identity ? *identity : 0; /* 0 is nobody's: no entry names it, so the default decides */
}

/* What one revision says. `from_host`: the peer opened this connection in the host's namespace. */
static inline struct verdict ask(u32 generation, u32 endpoint, u32 direction, const struct address *peer,
                                 bool from_host, u8 protocol, u16 port) {
    struct verdict v = {.action = DENY};
    struct defaults_key own = {.generation = generation, .endpoint = endpoint};
    struct defaults *fallback = defaults.lookup(&own);
    if (!fallback)
        return v; /* Safe: an enforced endpoint without a policy has none that allows anything. */
    v.by_policy = true;
    v.identity = from_host ? fallback->host_identity : identity_of(generation, peer);
    v.action = direction == INGRESS ? fallback->action[INGRESS] : fallback->action[EGRESS];
    struct policy_key key = {};
    key.prefix_length = 128;
    key.generation = generation;
    key.endpoint = endpoint;
    key.identity = v.identity;
    key.direction = direction;
    key.protocol = protocol;
    key.be_port = bpf_htons(port);
    struct policy_value *value = policy.lookup(&key);
    if (value)
        v.action = value->action;
    return v;
}

/*
 * What the policy in force says. User space deletes a revision once the next one is in force, so an answer counts
 * only where the revision that gave it still is: else parts of it may have been gone, and a deleted deny rule would
 * read as the default.
 */
static inline struct verdict judge(u32 endpoint, u32 direction, const struct address *peer, bool from_host,
                                   u8 protocol, u16 port) {
    u32 generation = generation_in_force();
    for (int i = 0; i < REVISIONS_WAITED_FOR; i++) {
        struct verdict v = ask(generation, endpoint, direction, peer, from_host, protocol, port);
        u32 now = generation_in_force();
        if (now == generation) {
            if (!v.by_policy)
                count(COUNT_NO_POLICY);
            return v;
        }
        generation = now;
    }
    struct verdict closed = {.action = DENY};
    return closed; /* Safe: no revision stood still long enough to be asked. */
}

/* Let on as it is: as policy says, or as a policy that would deny it is only tried. */
static inline bool passes(u32 action) {
    return action == PASS || action == AUDIT;
}

static inline void count_verdict(u32 endpoint, u32 direction, u32 action) {
    struct verdicts *v = verdicts.lookup(&endpoint);
    if (!v)
        return;
    u32 index = direction << 2 | action;
    asm volatile("%0 &= 7" : "+r"(index)); /* a bound that clang knows is needless and the verifier is not told */
    (&v->count[0][0])[index] += 1;
}

/* One more of this second's? Not exact: two processors may both take the last. */
static inline bool take_share(u32 index, u64 most) {
    struct told_rate *rate = told_rates.lookup(&index);
    if (!rate)
        return false;
    u64 second = bpf_ktime_get_ns() / 1000000000;
    if (rate->second != second) {
        rate->second = second;
        rate->sent = 0;
    }
    if (rate->sent >= most)
        return false;
    rate->sent += 1;
    return true;
}

static inline void tell_decided(u32 kind, u32 endpoint, u32 direction, u32 identity, u8 protocol, u16 port,
                                const struct address *peer) {
    bool audited = kind == EVENT_AUDITED;
    u32 untold = audited ? COUNT_AUDITS_UNTOLD : COUNT_DENIALS_UNTOLD;
    if (!take_share(2 * endpoint + audited, TOLD_PER_SECOND) ||
        (audited && !take_share(ALL_AUDITS, AUDITS_TOLD_PER_SECOND))) {
        count(untold);
        return;
    }
    struct event e = {};
    e.kind = kind;
    e.slot_or_endpoint = endpoint;
    e.generation_or_direction = direction;
    e.reason_or_identity = identity;
    e.protocol = protocol;
    e.port = port;
    e.address = *peer;
    if (events.ringbuf_output(&e, sizeof(e), 0))
        count(untold);
}

static inline void tell_denied(u32 endpoint, u32 direction, u32 identity, u8 protocol, u16 port,
                               const struct address *peer) {
    tell_decided(EVENT_DENIED, endpoint, direction, identity, protocol, port, peer);
}

static inline void tell_audited(u32 endpoint, u32 direction, u32 identity, u8 protocol, u16 port,
                                const struct address *peer) {
    tell_decided(EVENT_AUDITED, endpoint, direction, identity, protocol, port, peer);
}
