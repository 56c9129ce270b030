/*
 * sockops: who is who among the sockets of this node, and which two are the ends of one connection.
 *
 * Two local ends are known to be a pair by their sequence numbers: when both are ESTABLISHED, what one will send
 * next is what the other expects next. That holds across namespaces and address translation, where tuples lie.
 * The active end gets there first, leaves a handshake under its numbers, and the passive end picks it up.
 * Sockets that belong to no flow of kproxy are looked at and left alone.
 */

static inline void name_ends(struct bpf_sock_ops *ctx, struct address *local, struct address *remote) {
    if (ctx->family == FAMILY_IPV4) {
        set_ipv4(local, READ(ctx, local_ip4));
        set_ipv4(remote, READ(ctx, remote_ip4));
        return;
    }
    READ_IPV6(local, ctx, local_ip6);
    READ_IPV6(remote, ctx, remote_ip6);
}

static inline void call_me_on_close(struct bpf_sock_ops *ctx) {
    bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
}

/* Once a second at most, as user space then looks through all namespaces of the node. */
static inline void tell_stranger(void) {
    u32 zero = 0;
    u64 *told = strangers_told.lookup(&zero);
    u64 second = bpf_ktime_get_ns() / 1000000000;
    if (!told || *told == second)
        return;
    *told = second;
    struct event e = {.kind = EVENT_STRANGER};
    if (events.ringbuf_output(&e, sizeof(e), 0))
        count(COUNT_EVENTS_LOST);
}

/*
 * May a socket of this namespace be spliced? Not where the endpoint has it off, and only where user space can see
 * how much the socket holds unread, through sock_diag inside that namespace.
 */
static inline bool may_splice_here(u64 netns) {
    u32 *id = namespaces.lookup(&netns);
    if (id) {
        struct endpoint *endpoint = endpoints.lookup(id);
        return endpoint && endpoint->splice;
    }
    if (neighbours.lookup(&netns))
        return true;
    tell_stranger();
    return false;
}

static inline bool endpoint_splices(u32 id) {
    struct endpoint *endpoint = endpoints.lookup(&id);
    return endpoint && endpoint->splice;
}

/* A slot of one's own, with the first grant and no peer; 0: there is none left, or not for this endpoint. */
static inline struct slot *take_slot(u32 *index, u32 endpoint, u32 role, u64 netns) {
    u64 *taken_here = slots_taken.lookup(&endpoint);
    if (!taken_here || *taken_here >= MAX_SLOTS / 2 || free_slots.pop(index)) {
        count(COUNT_NO_SLOT);
        return 0;
    }
    u32 taken = *index;
    struct slot *slot = slots.lookup(&taken);
    if (!slot)
        return 0;
    u32 generation = slot->mode_generation & 0xffffffff;
    slot->bytes = 0;
    slot->messages = 0;
    slot->settled_bytes = 0;
    slot->settled_messages = 0;
    slot->tcp_bytes = 0;
    slot->grant_seen = 0;
    slot->ask_at = 0;
    slot->granted = ((u64)generation << GENERATION_SHIFT) | FIRST_GRANT;
    slot->reopen = ~0ULL; /* no total is ever this */
    slot->peer_cookie = 0;
    slot->peer_slot = NO_SLOT;
    slot->cookie = 0;
    slot->netns = netns;
    slot->role = role;
    slot->device = 0;
    slot->told = 0;
    slot->in_map = 0;
    slot->endpoint = endpoint;
    __sync_fetch_and_add(taken_here, 1);
    slot->mode_generation = generation; /* SPLICING */
    return slot;
}

static inline void give_back(u32 index, u32 generation) {
    struct slot *slot = slots.lookup(&index);
    if (!slot || (slot->mode_generation & 0xffffffff) != generation)
        return;
    u32 endpoint = slot->endpoint;
    u64 *taken_here = slots_taken.lookup(&endpoint);
    if (taken_here)
        __sync_fetch_and_add(taken_here, -1);
    slot->mode_generation = ((u64)CLOSED << 32) | (generation + 1);
    free_slots.push(&index, 0);
}

static inline u32 generation_of(struct slot *slot) {
    return slot->mode_generation & 0xffffffff;
}

/* Put this socket into the sockhash under a slot that was taken for it; false: it stays plain TCP. */
static inline bool enter_map(struct bpf_sock_ops *ctx, struct socket_state *state, struct slot *slot, u32 index) {
    struct bpf_sock *sk = ctx->sk;
    slot->device = sk ? sk->bound_dev_if : 0;
    slot->local_port = ctx->local_port;
    slot->remote_port = bpf_ntohl(READ(ctx, remote_port));
    name_ends(ctx, &slot->local, &slot->remote);
    u64 cookie = bpf_get_socket_cookie(ctx);
    slot->cookie = cookie;
    int failed = spliced.sock_hash_update(ctx, &cookie, BPF_ANY);
    if (failed) {
        count(COUNT_NOT_IN_SOCKHASH); /* full, or a kind of socket that cannot be there (MPTCP) */
        return false;
    }
    state->slot = index;
    state->slot_generation = generation_of(slot);
    state->in_sockhash = 1;
    slot->in_map = 1;
    return true;
}

/*
 * A socket stays in the sockhash when its connection ends, because what it has not read would be lost with its place.
 * Before it connects anew or listens, it is taken out: it is not of kproxy's flows any more, and what a listener
 * accepts would inherit its callbacks and lose bytes.
 */
static inline void leave_map(struct bpf_sock_ops *ctx, struct socket_state *state) {
    if (!state->in_sockhash)
        return;
    u64 cookie = bpf_get_socket_cookie(ctx);
    spliced.delete(&cookie);
    state->in_sockhash = 0;
}

static inline void listening(struct bpf_sock_ops *ctx, struct bpf_sock *sk) {
    struct socket_state *state = sockets.sk_storage_get(sk, 0, 0);
    if (!state)
        return;
    leave_map(ctx, state);
    sockets.sk_storage_delete(sk);
}

static inline u64 sequence_key(u32 sent, u32 received) {
    return ((u64)sent << 32) | received;
}

/* Two slots or none: an end in the map whose other end cannot follow would be of no use, and misread by FIONREAD. */
static inline bool take_slots(u32 *own, u32 *other, u32 endpoint, u32 role, u32 other_role, u64 netns) {
    struct slot *mine = take_slot(own, endpoint, role, netns);
    if (!mine)
        return false;
    if (take_slot(other, endpoint, other_role, netns))
        return true;
    give_back(*own, generation_of(mine));
    return false;
}

/* C enters the map, and keeps a slot for P. */
static inline void enter_first(struct bpf_sock_ops *ctx, struct socket_state *state, u64 netns,
                               struct handshake *h) {
    u32 own = 0, kept = 0;
    if (!take_slots(&own, &kept, state->endpoint, CLIENT, PROXY, netns))
        return;
    struct slot *mine = slots.lookup(&own), *other = slots.lookup(&kept);
    if (!mine || !other)
        return;
    h->kept_generation = generation_of(other);
    if (!enter_map(ctx, state, mine, own)) {
        give_back(own, generation_of(mine));
        give_back(kept, h->kept_generation);
        return;
    }
    h->kept = kept;
}

static inline void leave_handshake(struct bpf_sock_ops *ctx, struct socket_state *state, u64 netns, bool enters) {
    struct handshake h = {.kept = NO_SLOT};
    if (enters)
        enter_first(ctx, state, netns, &h);
    h.cookie = bpf_get_socket_cookie(ctx);
    h.netns = netns;
    h.shown = state->shown;
    h.shown_port = state->shown_port;
    h.role = state->role;
    h.endpoint = state->endpoint;
    h.slot = state->slot;
    h.slot_generation = state->slot_generation;
    h.splice = state->splice;
    u64 key = sequence_key(READ(ctx, snd_nxt), READ(ctx, rcv_nxt));
    /* Not over another's: whoever could place an entry first must not take over a connection. */
    if (!handshakes.insert(&key, &h)) {
        state->handshake = key;
        return;
    }
    count(COUNT_HANDSHAKES_FULL);
    give_back(h.kept, h.kept_generation);
    leave_map(ctx, state);
    give_back(state->slot, state->slot_generation);
    state->slot = NO_SLOT;
}

static inline struct socket_state *new_state(struct bpf_sock *sk, u32 role, u32 endpoint, u32 direction) {
    struct socket_state fresh = {};
    struct socket_state *state = sockets.sk_storage_get(sk, &fresh, BPF_SK_STORAGE_GET_F_CREATE);
    if (!state) {
        count(COUNT_STORAGE_FULL);
        return 0;
    }
    state->role = role;
    state->endpoint = endpoint;
    state->direction = direction;
    state->slot = NO_SLOT;
    return state;
}

static inline bool is_host(u64 netns) {
    u32 zero = 0;
    struct control *c = control.lookup(&zero);
    return c && c->host_netns == netns;
}

/* Would sk_lookup send this connection, opened on this node, to kproxy's ingress listener? */
static inline bool is_redirected_ingress(struct bpf_sock_ops *ctx, u64 netns, u32 *endpoint) {
    struct address local, remote;
    name_ends(ctx, &local, &remote);
    u32 *owner = own_addresses.lookup(&remote);
    if (!owner || is_loopback(&remote) || same_address(&local, &remote))
        return false;
    *endpoint = *owner;
    u16 port = bpf_ntohl(READ(ctx, remote_port));
    return judge(*owner, INGRESS, &local, is_host(netns), PROTOCOL_TCP, port).action == REDIRECT;
}

static inline void announce(struct bpf_sock_ops *ctx, struct socket_state *state, u32 kind) {
    struct tuple t = {};
    name_ends(ctx, &t.source, &t.destination);
    t.source_port = ctx->local_port;
    t.destination_port = bpf_ntohl(READ(ctx, remote_port));
    struct announcement a = {.kind = kind};
    if (announced.update(&t, &a)) {
        count(COUNT_HANDSHAKES_FULL); /* Safe: it is then judged like anybody's. */
        return;
    }
    state->tuple = t;
    state->announced = 1;
    call_me_on_close(ctx);
}

/* Before the SYN leaves: say to sk_lookup at the other end who this is. */
static inline void connecting(struct bpf_sock_ops *ctx, struct bpf_sock *sk) {
    u64 netns = bpf_get_netns_cookie(ctx);
    struct upstream *up = upstreams.sk_storage_get(sk, 0, 0);
    if (up) {
        struct socket_state *state = new_state(sk, UPSTREAM, up->endpoint, EGRESS);
        if (!state)
            return;
        state->cookie = bpf_get_socket_cookie(ctx);
        state->splice = up->flags & UPSTREAM_SPLICE ? 1 : 0;
        state->shown = up->client;
        state->shown_port = up->client_port;
        call_me_on_close(ctx);
        if (up->flags & UPSTREAM_ANNOUNCE)
            announce(ctx, state, ANNOUNCED_UPSTREAM);
        return;
    }
    struct socket_state *known = sockets.sk_storage_get(sk, 0, 0);
    if (known) {
        leave_map(ctx, known);
        if (known->role == CLIENT) {
            call_me_on_close(ctx); /* so that a redirect which never arrives is counted */
            return;
        }
        sockets.sk_storage_delete(sk);
    }
    if (!is_host(netns))
        return;
    struct address local, remote;
    name_ends(ctx, &local, &remote);
    if (!own_addresses.lookup(&remote))
        return;
    struct socket_state *state = new_state(sk, 0, 0, INGRESS);
    if (state)
        announce(ctx, state, ANNOUNCED_HOST);
}

/*
 * Whose policy a live connection is under when that changes is not to be seen later: a listener may be closed, or opened
 * on a port that was called from.
 */
static inline void remember_direction(struct bpf_sock_ops *ctx, u32 direction) {
    u64 netns = bpf_get_netns_cookie(ctx);
    if (!namespaces.lookup(&netns))
        return;
    u64 cookie = bpf_get_socket_cookie(ctx);
    directions.update(&cookie, &direction);
}

static inline void active_established(struct bpf_sock_ops *ctx, struct bpf_sock *sk) {
    if (!ctx->skb_len)
        return; /* TCP_REPAIR has put it into this state: no SYN-ACK came, and its owner chose the numbers */
    remember_direction(ctx, EGRESS);
    u64 netns = bpf_get_netns_cookie(ctx);
    struct upstream *up = upstreams.sk_storage_get(sk, 0, 0);
    struct socket_state *state = sockets.sk_storage_get(sk, 0, 0);
    if (up) {
        if (!state)
            return; /* no memory when it connected: it stays plain TCP */
        /* It enters the map when its server is known to be here: user space does that, see splicer.py. */
        leave_handshake(ctx, state, netns, false);
        return;
    }
    if (state && state->role == CLIENT && state->direction == EGRESS) {
        leave_handshake(ctx, state, netns, endpoint_splices(state->endpoint));
        return;
    }
    u32 endpoint = 0;
    if (!is_redirected_ingress(ctx, netns, &endpoint))
        return;
    struct socket_state *client = state ? state : new_state(sk, CLIENT, endpoint, INGRESS);
    if (!client)
        return;
    client->role = CLIENT;
    client->endpoint = endpoint;
    client->direction = INGRESS;
    client->shown_port = 0; /* it sees the server's own address anyway */
    call_me_on_close(ctx);
    leave_handshake(ctx, client, netns, endpoint_splices(endpoint) && may_splice_here(netns));
}

/* Both slots learn of each other, the one that may be sending already last of all. */
static inline void pair_slots(struct slot *mine, u32 own_index, struct slot *other, u32 other_index) {
    mine->peer_slot = other_index;
    mine->peer_cookie = other->cookie;
    other->peer_slot = own_index;
    other->peer_cookie = mine->cookie;
    count(COUNT_PAIRED);
}

/* P enters the map, where C is already; C may have sent before this and gone by TCP. */
static inline void pair_with_client(struct bpf_sock_ops *ctx, struct socket_state *state,
                                    struct handshake *active, u64 netns) {
    u32 index = active->kept, client_index = active->slot;
    struct slot *mine = slots.lookup(&index); /* NO_SLOT is beyond the map */
    struct slot *client = slots.lookup(&client_index);
    if (!mine || !client)
        return;
    mine->netns = netns;
    if (!enter_map(ctx, state, mine, index)) {
        give_back(index, active->kept_generation);
        return;
    }
    if (generation_of(client) == active->slot_generation)
        pair_slots(mine, index, client, client_index);
}

/*
 * S enters the map, and a slot is taken for U. The U of a server that is not on this node never enters, so it is
 * user space that puts U's socket there, when it finds this pair (splicer.py). Where user space did not want to wait,
 * it has left an element of its own in the pair's place: whoever inserts first decides for both.
 */
static inline void pair_with_upstream(struct bpf_sock_ops *ctx, struct socket_state *state,
                                      struct handshake *active, u64 netns) {
    u32 own = 0, index = 0;
    u64 cookie = active->cookie;
    if (!active->splice || pairs.lookup(&cookie) || !may_splice_here(netns) ||
        !take_slots(&own, &index, active->endpoint, SERVER, UPSTREAM, netns))
        return;
    struct slot *mine = slots.lookup(&own), *upstream = slots.lookup(&index);
    if (!mine || !upstream)
        return;
    upstream->cookie = cookie;
    upstream->netns = active->netns;
    struct pair pair = {.server_cookie = bpf_get_socket_cookie(ctx), .slot = index};
    pair.slot_generation = generation_of(upstream);
    if (!enter_map(ctx, state, mine, own)) {
        give_back(own, generation_of(mine));
        give_back(index, pair.slot_generation);
        return;
    }
    pair_slots(mine, own, upstream, index);
    if (!pairs.insert(&cookie, &pair))
        return;
    if (!pairs.lookup(&cookie))
        count(COUNT_HANDSHAKES_FULL); /* else user space was faster */
    /* Nothing is lost with its place: only U could have redirected to it, and U is in the map once there is a pair. */
    leave_map(ctx, state);
    give_back(index, pair.slot_generation);
    give_back(own, state->slot_generation);
    state->slot = NO_SLOT;
}

/* Both ends of the pair do this when they close; deleting succeeds once. */
static inline void end_pair(u64 upstream_cookie) {
    struct pair *pair = pairs.lookup(&upstream_cookie);
    if (!pair)
        return;
    u32 index = pair->slot, generation = pair->slot_generation;
    if (!pairs.delete(&upstream_cookie))
        give_back(index, generation);
}

/*
 * C took itself for a client of kproxy's, and this other end is none: the policy has changed between SYN and
 * ESTABLISHED, or an address was translated on the way. It must not stay in the map, where FIONREAD would not count
 * what the server sends it.
 */
static inline void dismiss(struct handshake *active) {
    u64 cookie = active->cookie;
    spliced.delete(&cookie);
    give_back(active->kept, active->kept_generation);
}

static inline void passive_established(struct bpf_sock_ops *ctx, struct bpf_sock *sk) {
    remember_direction(ctx, INGRESS);
    u64 key = sequence_key(READ(ctx, rcv_nxt), READ(ctx, snd_nxt));
    struct handshake active = {};
    struct handshake *found = handshakes.lookup(&key);
    if (found) {
        active = *found;
        if (handshakes.delete(&key)) /* its socket has closed meanwhile, and taken it back */
            active.role = 0;
    }
    u32 role = SERVER, expected = UPSTREAM, endpoint = active.endpoint, direction = INGRESS;
    struct listener *listener = listeners.sk_storage_get(sk, 0, 0);
    if (listener) {
        role = PROXY;
        expected = CLIENT;
        endpoint = listener->endpoint;
        direction = listener->direction;
    } else if (active.role != UPSTREAM) {
        if (active.role == CLIENT)
            dismiss(&active);
        return; /* somebody else's connection */
    }
    u64 netns = bpf_get_netns_cookie(ctx);
    struct socket_state *state = new_state(sk, role, endpoint, direction);
    if (!state)
        return;
    call_me_on_close(ctx);
    if (active.role != expected)
        return; /* a remote client, or one that came around the hooks: user space sees no destination */
    state->peer_in_map = active.slot != NO_SLOT;
    state->peer_cookie = active.cookie;
    state->peer_netns = active.netns;
    state->shown = active.shown;
    state->shown_port = active.shown_port;
    state->paired = 1;
    if (role == PROXY && direction == EGRESS)
        count(COUNT_REDIRECTS_ARRIVED);
    if (role == SERVER)
        pair_with_upstream(ctx, state, &active, netns);
    else
        pair_with_client(ctx, state, &active, netns);
}

/* The socket's last word: everything that was left in maps for it goes. */
static inline void closed(struct bpf_sock_ops *ctx, struct bpf_sock *sk) {
    struct socket_state *state = sockets.sk_storage_get(sk, 0, 0);
    if (!state)
        return;
    if (state->announced) {
        /* Before the port can be bound again (tcp_set_state calls us first): no stale pass is left behind. */
        struct tuple t = state->tuple;
        announced.delete(&t);
        state->announced = 0;
    }
    if (state->handshake) {
        u64 key = state->handshake;
        struct handshake *left = handshakes.lookup(&key);
        if (left && left->cookie == bpf_get_socket_cookie(ctx)) {
            u32 kept = left->kept, generation = left->kept_generation;
            if (!handshakes.delete(&key)) {
                give_back(kept, generation);
                if (state->role == CLIENT && state->direction == EGRESS)
                    count(COUNT_REDIRECTS_LOST);
            }
        }
        state->handshake = 0;
    } else if (state->role == CLIENT && state->direction == EGRESS && state->slot == NO_SLOT) {
        count(COUNT_REDIRECTS_LOST);
    }
    if (state->role == UPSTREAM) {
        end_pair(state->cookie); /* its slot is the pair's */
        return;
    }
    if (state->role == SERVER)
        end_pair(state->peer_cookie);
    give_back(state->slot, state->slot_generation);
    state->slot = NO_SLOT;
}

int kproxy_sockops(struct bpf_sock_ops *ctx) {
    struct bpf_sock *sk = ctx->sk;
    if (!sk)
        return 0;
    if (ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB)
        connecting(ctx, sk);
    else if (ctx->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
        active_established(ctx, sk);
    else if (ctx->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
        passive_established(ctx, sk);
    else if (ctx->op == BPF_SOCK_OPS_TCP_LISTEN_CB)
        listening(ctx, sk);
    else if (ctx->op == BPF_SOCK_OPS_STATE_CB && ctx->args[1] == BPF_TCP_CLOSE)
        closed(ctx, sk);
    return 0;
}
