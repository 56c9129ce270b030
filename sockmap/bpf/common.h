/* Small helpers of every program. */

/* bcc's own copy of bpf.h lacks these; the layouts are UAPI (include/uapi/linux/socket.h, in.h, in6.h). */
struct sockaddr {
    unsigned short sa_family;
    char sa_data[14];
};
struct sockaddr_in {
    u16 sin_family, be_port;
    u32 sin_addr;
    u8 zero[8];
};
struct sockaddr_in6 {
    u16 sin6_family, be_port;
    u32 flowinfo;
    u32 sin6_addr[4];
    u32 scope;
};

#define LOOPBACK_IFINDEX 1 /* include/net/net_namespace.h: the same in every namespace */
#define FAMILY_IPV4 2
#define FAMILY_IPV6 10
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17
#define MAPPED bpf_htonl(0xffff)

#define ALLOW_CALL 1 /* what a cgroup address hook returns to let the system call go on */
#define REFUSE_CALL 0 /* and to end it with EPERM */

/*
 * Read a u32 of a context in one instruction with a constant offset. Left to itself, clang merges two adjacent
 * reads into one of 64 bits, or the ends of two branches into one read through a computed pointer: the verifier
 * refuses both.
 */
#define READ(ctx, field)                                                                     \
    ({                                                                                       \
        u32 value_;                                                                          \
        asm volatile("%0 = *(u32 *)(%1 + %2)"                                                \
                     : "=r"(value_)                                                          \
                     : "r"(ctx), "i"(__builtin_offsetof(__typeof__(*(ctx)), field)));        \
        value_;                                                                              \
    })

#define READ_IPV6(address, ctx, field)           \
    do {                                         \
        (address)->word[0] = READ(ctx, field[0]); \
        (address)->word[1] = READ(ctx, field[1]); \
        (address)->word[2] = READ(ctx, field[2]); \
        (address)->word[3] = READ(ctx, field[3]); \
    } while (0)

/* Atomic although per processor: a program in a system call may be interrupted by one in a softirq. */
static inline void count_bytes(u32 which, u64 bytes) {
    u64 *value = counters.lookup(&which);
    if (value)
        __sync_fetch_and_add(value, bytes);
}

static inline void count(u32 which) {
    count_bytes(which, 1);
}

static inline void set_ipv4(struct address *a, u32 be_address) {
    a->word[0] = 0;
    a->word[1] = 0;
    a->word[2] = MAPPED;
    a->word[3] = be_address;
}

static inline bool is_ipv4(const struct address *a) {
    return a->word[0] == 0 && a->word[1] == 0 && a->word[2] == MAPPED;
}

/* The namespace talking to itself: such traffic never leaves the pod, and no CNI polices it either. */
static inline bool is_loopback(const struct address *a) {
    if (is_ipv4(a))
        return (a->word[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000) || a->word[3] == 0;
    return a->word[0] == 0 && a->word[1] == 0 && a->word[2] == 0 &&
           (a->word[3] == bpf_htonl(1) || a->word[3] == 0);
}

static inline bool same_address(const struct address *a, const struct address *b) {
    return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->word[2] == b->word[2] &&
           a->word[3] == b->word[3];
}
