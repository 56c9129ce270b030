/* The maps, their sizes and why. User space finds them by name (at most 15 characters are kept by the kernel). */

/* MAX_SLOTS is given at load: both ends of two pairs a flow, so this bounds spliced flows at a quarter of it. */
#define MAX_ENDPOINTS 1024       /* local pods; the kubelet's default is 110 a node */
#define MAX_NEIGHBOURS 4096      /* other namespaces of this node: pods without policy */
#define MAX_IDENTITIES 65536     /* two revisions of the address table live side by side during a change */
#define MAX_POLICY 262144
#define MAX_HANDSHAKES 65536     /* connections between the two ends' ESTABLISHED: normally microseconds */
#define MAX_DATAGRAM_FLOWS 65536
#define MAX_DIRECTIONS 65536     /* as many connections at once as one address has ports */
#define EVENT_PAGES 64           /* 256 KiB: some 4,000 records until user space looks */
#define PAGE_SIZE 4096           /* bcc's ring buffer macro counts in these */

BPF_ARRAY(control, struct control, 1);
BPF_ARRAY(endpoints, struct endpoint, MAX_ENDPOINTS);
BPF_HASH(namespaces, u64, u32, MAX_ENDPOINTS);              /* netns cookie -> endpoint */
BPF_HASH(neighbours, u64, u32, MAX_NEIGHBOURS);            /* cookie of a namespace without policy, seen into */
BPF_HASH(own_addresses, struct address, u32, 8192);         /* address of an enforced endpoint -> endpoint */
BPF_LPM_TRIE(identities, struct identity_key, u32, MAX_IDENTITIES);
BPF_HASH(defaults, struct defaults_key, struct defaults, 2 * MAX_ENDPOINTS);
BPF_LPM_TRIE(policy, struct policy_key, struct policy_value, MAX_POLICY);

BPF_SK_STORAGE(sockets, struct socket_state);
BPF_SK_STORAGE(upstreams, struct upstream);

/* As BPF_SK_STORAGE, with BPF_F_CLONE: the kernel copies it to each socket that the listener accepts. */
struct listeners_table_t {
    int key;
    struct listener leaf;
    void *(*sk_storage_get)(void *, void *, int);
    int (*sk_storage_delete)(void *);
    u32 flags;
};
__attribute__((section("maps/sk_storage"))) struct listeners_table_t listeners = {
    .flags = BPF_F_NO_PREALLOC | BPF_F_CLONE};
BPF_ANNOTATE_KV_PAIR(listeners, int, struct listener);

/* Where sk_lookup finds kproxy's listeners: 4 * endpoint + 2 * direction + (IPv6 ? 1 : 0). */
BPF_TABLE("sockmap", u32, u64, steering, 4 * MAX_ENDPOINTS);

/* LRU: of a connection that is not remembered any more, user space guesses by the ports that are listened on. */
BPF_TABLE("lru_hash", u64, u32, directions, MAX_DIRECTIONS); /* cookie of an enforced endpoint's socket -> who opened */

BPF_HASH(handshakes, u64, struct handshake, MAX_HANDSHAKES);
BPF_HASH(pairs, u64, struct pair, MAX_HANDSHAKES);          /* cookie of U -> S and U's slot, while both live */
BPF_HASH(announced, struct tuple, struct announcement, MAX_HANDSHAKES);
/* LRU: a flood of datagrams costs others their answers, never lets anything through. */
BPF_TABLE("lru_hash", struct datagram_flow, struct datagram_memory, datagrams, MAX_DATAGRAM_FLOWS);

/* Socket cookie -> socket. A slot is free when its connection ends, a place here when the socket is closed. */
BPF_SOCKHASH(spliced, u64, 4 * MAX_SLOTS);
BPF_F_TABLE("array", u32, struct slot, slots, MAX_SLOTS, BPF_F_MMAPABLE);
BPF_QUEUE(free_slots, u32, MAX_SLOTS);
/* By endpoint, which may have half of all: one pod's connections must not take the splice from the others. */
BPF_ARRAY(slots_taken, u64, MAX_ENDPOINTS);

BPF_RINGBUF_OUTPUT(events, EVENT_PAGES);
BPF_PERCPU_ARRAY(counters, u64, COUNTERS);
BPF_PERCPU_ARRAY(verdicts, struct verdicts, MAX_ENDPOINTS);
struct told_rate {
    u64 second;
    u64 sent;
};
BPF_ARRAY(strangers_told, u64, 1);                          /* second in which a namespace was last told of */
/* 2 * endpoint, and 1 for what was audited: a flood of either leaves the other its lines. */
#define ALL_AUDITS (2 * MAX_ENDPOINTS)
BPF_ARRAY(told_rates, struct told_rate, 2 * MAX_ENDPOINTS + 1);
