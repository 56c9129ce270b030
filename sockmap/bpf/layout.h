/*
 * Layouts shared by the programs and by user space (sockmap/layout.py mirrors them; a test compares size and
 * offsets). All integers are in host byte order unless a name says `be`; addresses are in network byte order,
 * IPv4 kept as ::ffff:a.b.c.d, so that one key serves both families and IPv4-mapped sockets.
 */

enum direction { INGRESS = 0, EGRESS = 1 };

/* AUDIT: PASS, and told: a policy that is only tried would deny it. */
enum action { PASS = 0, DENY = 1, REDIRECT = 2, AUDIT = 3 };

struct address {
    u32 word[4];
};

/* One TCP connection as one end writes it: source is the side that sent the SYN. */
struct tuple {
    struct address source, destination;
    u32 source_port, destination_port;
};

/* ---- who is policed -------------------------------------------------------------------------------------- */

struct control {
    u32 generation;      /* the policy revision in force; keys of `identities`, `defaults` and `policy` carry it */
    u32 pad;
    u64 host_netns;      /* cookie of the host's network namespace */
};

struct endpoint {
    struct address source4, source6;     /* what getsockname() of a redirected client must say; zero: leave it */
    u32 egress_port4, egress_port6;      /* where kproxy's egress listeners of this namespace listen; 0: none */
    u32 splice;                          /* 1: its sockets may be spliced */
    u32 pad;
};

struct identity_key {                    /* longest-prefix key: 32 + 0..128 bits */
    u32 prefix_length;
    u32 generation;
    struct address address;
};

struct defaults_key {
    u32 generation, endpoint;
};

struct defaults {
    u32 action[2];                       /* where no entry matches, by enum direction */
    u32 host_identity;                   /* identity of a connection opened in the host's network namespace */
    u32 pad;
};

struct policy_key {                      /* longest-prefix key: 112 + 0..16 bits: a port range is a few prefixes */
    u32 prefix_length;
    u32 generation, endpoint, identity;
    u8 direction, protocol;
    u16 be_port;
};

struct policy_value {
    u32 action;
};

/* ---- whose socket is it ---------------------------------------------------------------------------------- */

enum role { CLIENT = 1, PROXY = 2, UPSTREAM = 3, SERVER = 4 };

/* Written by user space alone, onto kproxy's own listeners; every accepted socket inherits a copy. */
struct listener {
    u32 endpoint, direction;
};

enum upstream_flags {
    UPSTREAM_ANNOUNCE = 1,       /* this flow has judged the server's ingress too: let it through there */
    UPSTREAM_SPLICE = 2,         /* its endpoint lets it be spliced, if the server is on this node */
};

/* Written by user space alone, onto kproxy's own upstream sockets before connect(). */
struct upstream {
    struct address client;       /* whom the server shall see */
    u32 client_port, flags, endpoint, pad;
};

#define NO_SLOT 0xffffffffu

/* What the kernel side knows of one socket of a flow; it lives and dies with the socket. */
struct socket_state {
    u64 cookie;                  /* this socket's own, where it is an upstream */
    u64 peer_cookie;             /* the socket at the other end of this connection, once paired */
    u64 peer_netns;
    u64 handshake;               /* key in `handshakes` while unpaired */
    struct address shown;        /* C: whom it called. S: its real client. P: C's original destination */
    u32 shown_port;
    u32 role, endpoint, direction;
    u32 slot, slot_generation;   /* in `slots`; NO_SLOT: not spliced */
    u32 announced, paired, splice;
    u32 in_sockhash;             /* it stays there until it is closed, whatever becomes of its connection */
    u32 peer_in_map, pad;        /* P: its client is in the sockhash */
    struct tuple tuple;          /* the key left in `announced` */
};

/* The active end leaves this under its sequence numbers; the passive end picks it up. */
struct handshake {
    u64 cookie, netns;
    struct address shown;
    u32 shown_port;
    u32 role, endpoint;
    u32 slot, slot_generation, splice;
    u32 kept, kept_generation, pad; /* C's: the slot that it keeps for P; whoever deletes this has it */
};

/*
 * Under the cookie of an upstream socket whose server is on this node, and in the map. It holds the slot that was
 * taken for the upstream socket: whichever of the two ends first deletes the element gives that slot back. With
 * NO_SLOT it is user space's: this upstream socket will not be spliced, and its server stays out of the map.
 */
struct pair {
    u64 server_cookie;
    u32 slot, slot_generation;
};

struct announcement {
    u32 kind, pad;
};
enum announcement_kind { ANNOUNCED_UPSTREAM = 1, ANNOUNCED_HOST = 2 };

/* Traffic without connections: a datagram that was allowed one way allows its answer the other way. */
struct datagram_flow {
    struct address remote;
    u32 endpoint;
    u16 local_port, remote_port;
};

struct datagram_memory {
    u64 since;
    u32 direction;   /* the way that was allowed; answers come the other */
    u32 audited;     /* it was allowed only as AUDIT, and that was told */
};

/* ---- credit ---------------------------------------------------------------------------------------------- */

#define GENERATION_SHIFT 48 /* words that user space writes carry the slot's generation above their value */

enum slot_mode { SPLICING = 0, BY_TCP = 1, CLOSED = 2 };

/*
 * One per socket in the map, for the direction in which it sends. Every word has one writer: the kernel, under
 * the sender's socket lock, or user space for the last ones. User space reads aligned u64 words of the mapping.
 * A sequence of 16 message ends lets user space turn "bytes read" into "messages read".
 */
struct slot {
    u64 bytes, messages;                  /*   0   redirected, counted before the redirect takes place */
    u64 settled_bytes, settled_messages;  /*  16   the same before the current message: all of it is charged */
    u64 tcp_bytes;                        /*  32   left to TCP while in the map */
    u64 grant_seen, ask_at;               /*  40   last grant seen; the cost at which to ask for more */
    u64 mode_generation;                  /*  56   enum slot_mode << 32 | generation */
    u64 peer_cookie;                      /*  64   0: no peer yet, go by TCP */
    u64 cookie, netns;                    /*  72   this socket */
    u64 peer_slot;                        /*  88   the slot of the reader (NO_SLOT: unknown) */
    struct address local, remote;         /*  96   this socket's own names, to find it through sock_diag */
    u32 local_port, remote_port;          /* 128 */
    u32 device, role;                     /* 136   the device that it is bound to, as sock_diag wants to know */
    u32 endpoint, told;                   /* 144   whose it is; whether user space was told that it goes by TCP */
    u64 message_end[16];                  /* 152   `bytes` after each of the last 16 messages */
    u64 in_map;                           /* 280   this socket entered the sockhash; an upstream's: user space */
    u64 granted;                          /* 288   user space, after the first: generation << 48 | cost */
    u64 reopen;                           /* 296   user space: generation << 48 | total read to the last byte */
};

/* ---- what user space is told ------------------------------------------------------------------------------ */

enum event_kind { EVENT_ASK = 1, EVENT_TO_TCP = 2, EVENT_DENIED = 3, EVENT_STRANGER = 4, EVENT_AUDITED = 5 };

struct event {
    u32 kind;
    u32 slot_or_endpoint, generation_or_direction;
    u32 reason_or_identity;
    u32 protocol, port;
    struct address address;
};

enum to_tcp_reason { NO_CREDIT = 1, NO_PEER = 2, REDIRECT_FAILED = 3 };

enum counter {
    /* bytes of kproxy's flows that sk_msg saw, by who sent them: role - 1, four each */
    COUNT_SPLICED_BYTES = 0,
    COUNT_TCP_BYTES = 4,
    COUNT_TO_TCP_NO_CREDIT = 8,
    COUNT_TO_TCP_NO_PEER,
    COUNT_TO_TCP_REDIRECT_FAILED,
    COUNT_REOPENED,
    COUNT_NO_SLOT,
    COUNT_NOT_IN_SOCKHASH,
    COUNT_HANDSHAKES_FULL,
    COUNT_EVENTS_LOST,
    COUNT_REDIRECTED,          /* connections sent to kproxy by the connect hooks or sk_lookup */
    COUNT_REDIRECTS_ARRIVED,   /* of the connect hooks': those that reached the listener */
    COUNT_REDIRECTS_LOST,      /* of the connect hooks': those that ended before */
    COUNT_STORAGE_FULL,
    COUNT_PAIRED,
    COUNT_NO_POLICY,
    COUNT_LISTENER_MISSING,
    COUNT_DENIALS_UNTOLD,      /* counted in `verdicts`, but too many to be told one by one */
    COUNT_AUDITS_UNTOLD,
    COUNTERS,
};

/* What the hooks answered for one endpoint: by direction, then by enum action. */
struct verdicts {
    u64 count[2][4];
};
