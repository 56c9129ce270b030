/* One connection, one answer: the same question is asked by the connect hooks, sk_lookup and the pairing. */

/* A SYN flood at a closed port must not become a flood of log lines; what is not told is still counted. */
#define DENIALS_TOLD_PER_SECOND 100

static inline u32 generation_in_force(void) {
    u32 zero = 0;
    struct control *c = control.lookup(&zero);
    return c ? c->generation : 0;
}

static inline u32 identity_of(u32 generation, const struct address *peer) {
    struct identity_key key = {};
    key.prefix_length = 32 + 128;
    key.generation = generation;
    key.address = *peer;
    u32 *identity = identities.lookup(&key);
    return identity ? *identity : 0; /* 0 is nobody's: no entry names it, so the default decides */
}

static inline u32 decide(u32 generation, u32 endpoint, u32 direction, u32 identity, u8 protocol, u16 port) {
    struct defaults_key own = {.generation = generation, .endpoint = endpoint};
    struct defaults *fallback = defaults.lookup(&own);
    if (!fallback) {
        /* Safe: an enforced endpoint without a policy has none that allows anything. */
        count(COUNT_NO_POLICY);
        return DENY;
    }
    struct policy_key key = {};
    key.prefix_length = 128;
    key.generation = generation;
    key.endpoint = endpoint;
    key.identity = identity;
    key.direction = direction;
    key.protocol = protocol;
    key.be_port = bpf_htons(port);
    struct policy_value *value = policy.lookup(&key);
    if (value)
        return value->action;
    return direction == INGRESS ? fallback->action[INGRESS] : fallback->action[EGRESS];
}

static inline void count_verdict(u32 endpoint, u32 direction, u32 action) {
    struct verdicts *v = verdicts.lookup(&endpoint);
    if (!v)
        return;
    u32 index = direction << 2 | action;
    asm volatile("%0 &= 7" : "+r"(index)); /* a bound that clang knows is needless and the verifier is not told */
    (&v->count[0][0])[index] += 1;
}

static inline void tell_denied(u32 endpoint, u32 direction, u32 identity, u8 protocol, u16 port,
                               const struct address *peer) {
    struct deny_rate *rate = deny_rates.lookup(&endpoint);
    if (!rate)
        return;
    u64 second = bpf_ktime_get_ns() / 1000000000;
    if (rate->second != second) {
        rate->second = second;
        rate->sent = 0;
    }
    if (rate->sent >= DENIALS_TOLD_PER_SECOND)
        return;
    rate->sent += 1;
    struct event e = {};
    e.kind = EVENT_DENIED;
    e.slot_or_endpoint = endpoint;
    e.generation_or_direction = direction;
    e.reason_or_identity = identity;
    e.protocol = protocol;
    e.port = port;
    e.address = *peer;
    if (events.ringbuf_output(&e, sizeof(e), 0))
        count(COUNT_EVENTS_LOST);
}
