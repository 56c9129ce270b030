/*
 * sk_msg: every send() of a socket in the sockhash. Within its credit the message is moved to the queue of the
 * socket at the other end; otherwise it is left to TCP, for which all back-pressure is the kernel's own.
 * Nothing is ever dropped here: a drop would poison the sender for good, with no program run.
 */

/* A grant is valid for one owner of the slot; a late write for the last owner counts as the first grant. */
static inline u64 grant_of(struct slot *slot, u64 tag) {
    u64 granted = slot->granted;
    if ((granted ^ tag) >> GENERATION_SHIFT)
        return FIRST_GRANT;
    return granted << 16 >> 16;
}

/* Whether there was room for it in the ring buffer. */
static inline bool tell(struct slot *slot, u32 index, u32 kind, u32 reason) {
    struct event e = {};
    e.kind = kind;
    e.slot_or_endpoint = index;
    e.generation_or_direction = slot->mode_generation & 0xffffffff;
    e.reason_or_identity = reason;
    if (!events.ringbuf_output(&e, sizeof(e), 0))
        return true;
    count(COUNT_EVENTS_LOST);
    return false;
}

static inline void count_tcp(struct slot *slot, u32 size) {
    slot->tcp_bytes += size;
    count_bytes(COUNT_TCP_BYTES + ((slot->role - 1) & 3), size);
}

static inline int leave_to_tcp(struct slot *slot, u32 index, u32 size, u32 reason) {
    slot->mode_generation = ((u64)BY_TCP << 32) | (slot->mode_generation & 0xffffffff);
    count_tcp(slot, size);
    count(COUNT_TO_TCP_NO_CREDIT + reason - NO_CREDIT);
    slot->told = tell(slot, index, EVENT_TO_TCP, reason);
    return SK_PASS;
}

/*
 * Back from TCP only when all that was ever sent has been read: user space wrote that total, and nothing was sent
 * since. Otherwise this message could overtake one that is still on its way.
 */
static inline bool reopens(struct slot *slot, u64 tag) {
    return slot->reopen == (tag | (slot->bytes + slot->tcp_bytes));
}

static inline int stay_by_tcp(struct slot *slot, u32 index, u32 size) {
    count_tcp(slot, size);
    if (!slot->told) /* or nobody would ever bring it back */
        slot->told = tell(slot, index, EVENT_TO_TCP, NO_CREDIT);
    return SK_PASS;
}

/* An upstream socket learns of its slot when it first sends: the slot was taken when its server was found. */
static inline void find_slot(struct socket_state *state) {
    struct pair *pair = pairs.lookup(&state->cookie);
    if (!pair)
        return;
    state->slot = pair->slot;
    state->slot_generation = pair->slot_generation;
}

/* The reader's slot; 0 where the two do not name each other's sockets: it may have got a new owner since. */
static inline struct slot *paired_slot(struct slot *slot, u64 peer) {
    u32 index = slot->peer_slot;
    struct slot *reader = slots.lookup(&index);
    return reader && peer && reader->cookie == peer && reader->peer_cookie == slot->cookie ? reader : 0;
}

/* Nobody will read it: TCP has its own answer. That is no fall from splicing, but the end of the connection. */
static inline int leave_to_reset(struct slot *slot, u32 size) {
    count_tcp(slot, size);
    return SK_PASS;
}

int kproxy_splice(struct sk_msg_md *msg) {
    struct bpf_sock *sk = msg->sk;
    struct socket_state *state = sk ? sockets.sk_storage_get(sk, 0, 0) : 0;
    if (!state)
        return SK_PASS;
    if (state->slot == NO_SLOT && state->role == UPSTREAM)
        find_slot(state);
    u32 index = state->slot;
    struct slot *slot = slots.lookup(&index);
    u32 generation = state->slot_generation;
    if (!slot || (slot->mode_generation & 0xffffffff) != generation)
        return SK_PASS;
    u64 tag = (u64)generation << GENERATION_SHIFT;
    u32 size = msg->size;
    if (slot->mode_generation >> 32 != SPLICING) {
        if (!reopens(slot, tag))
            return stay_by_tcp(slot, index, size);
        slot->mode_generation = generation;
        count(COUNT_REOPENED);
    }
    u64 granted = grant_of(slot, tag);
    u64 bytes = slot->bytes, messages = slot->messages;
    slot->settled_bytes = bytes;
    slot->settled_messages = messages;
    bytes += size;
    messages += 1;
    u64 cost = bytes + messages * MESSAGE_COST;
    if (cost > granted)
        return leave_to_tcp(slot, index, size, NO_CREDIT);
    u64 peer = slot->peer_cookie;
    struct slot *reader = paired_slot(slot, peer);
    if (!reader)
        return leave_to_tcp(slot, index, size, NO_PEER);
    /* Safe: the peer was found by sequence numbers, and what it may hold unread is bounded by the grant. */
    int moved = spliced.msg_redirect_hash(msg, &peer, BPF_F_INGRESS);
    if (moved != SK_PASS)
        return reader->in_map ? leave_to_reset(slot, size) : leave_to_tcp(slot, index, size, REDIRECT_FAILED);
    slot->bytes = bytes;
    slot->messages = messages;
    slot->message_end[messages & 15] = bytes;
    count_bytes(COUNT_SPLICED_BYTES + ((slot->role - 1) & 3), size);
    if (granted != slot->grant_seen) {
        slot->grant_seen = granted;
        slot->ask_at = cost + (granted - cost) / 2;
    }
    if (cost >= slot->ask_at && tell(slot, index, EVENT_ASK, 0))
        slot->ask_at = cost + (granted - cost) / 2 + 1; /* again when half of the rest is gone */
    return SK_PASS;
}
