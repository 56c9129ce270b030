/*
 * cgroup_skb: what goes past the connect hooks and sk_lookup, judged as the packet that it is.
 *
 * They judge the address that a TCP or UDP socket is given, and what looks for a TCP or UDP listener. But a UDP-Lite
 * socket's connect(), a ping socket's sendto() and other protocols' calls come past no connect hook; an IPv6 routing
 * header, which is a socket option and needs no privilege, sends a packet to another address first; a control
 * message can route 127.0.0.1 out of the pod. And sk_lookup is not asked for broadcast and multicast datagrams, nor
 * for other protocols.
 *
 * Other protocols have no rules of their own. They pass where policy allows the whole of the peer, every port of TCP
 * and UDP, as a rule without ports does.
 *
 * These run for each packet of each socket on this node, so the ordinary ones are let go by a look at the header.
 */

#define ALLOW_PACKET 1
#define DROP_PACKET 0 /* a sender is told: EPERM */

#define ETHERTYPE_IPV4 bpf_htons(0x0800)
#define ETHERTYPE_IPV6 bpf_htons(0x86dd)
#define IPV4_PLAIN 0x45 /* version 4, a header of five words: no options */
#define PROTOCOL_HOP_BY_HOP 0
#define PROTOCOL_ICMP 1
#define PROTOCOL_IGMP 2
#define PROTOCOL_ICMPV6 58
#define ICMP_ECHO 8
#define ICMPV6_ECHO 128

struct ipv4_header {
    u8 version_length, service;
    u16 be_length, be_id, be_fragment;
    u8 time_to_live, protocol;
    u16 be_checksum;
    u32 source, destination;
};

struct ipv6_header {
    u32 be_version_label;
    u16 be_length;
    u8 protocol, hop_limit;
    u32 source[4], destination[4];
};

static inline bool is_tcp_or_udp(u32 protocol) {
    return protocol == PROTOCOL_TCP || protocol == PROTOCOL_UDP;
}

/* Plain TCP or UDP, to an address that is looked up as the one that was judged. */
static inline bool is_ordinary(struct __sk_buff *skb) {
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    if (skb->protocol == ETHERTYPE_IPV6) {
        struct ipv6_header *ipv6 = data;
        return (void *)(ipv6 + 1) <= end && is_tcp_or_udp(ipv6->protocol);
    }
    struct ipv4_header *ipv4 = data;
    return (void *)(ipv4 + 1) <= end && ipv4->version_length == IPV4_PLAIN && is_tcp_or_udp(ipv4->protocol) &&
           (ipv4->destination & bpf_htonl(0xff000000)) != bpf_htonl(0x7f000000);
}

/* What of a packet is judged: where it goes next, and what the header says it is (IPv6: or the first extension). */
struct packet {
    struct address source, destination;
    u32 protocol, payload; /* where what follows the header begins */
};

static inline bool read_header(struct __sk_buff *skb, struct packet *packet) {
    if (skb->protocol == ETHERTYPE_IPV4) {
        struct ipv4_header ipv4;
        if (bpf_skb_load_bytes(skb, 0, &ipv4, sizeof(ipv4)))
            return false;
        set_ipv4(&packet->source, ipv4.source);
        set_ipv4(&packet->destination, ipv4.destination);
        packet->protocol = ipv4.protocol;
        packet->payload = (ipv4.version_length & 15) * 4;
        return true;
    }
    struct ipv6_header ipv6;
    if (bpf_skb_load_bytes(skb, 0, &ipv6, sizeof(ipv6)))
        return false;
    __builtin_memcpy(&packet->source, ipv6.source, sizeof(packet->source));
    __builtin_memcpy(&packet->destination, ipv6.destination, sizeof(packet->destination));
    packet->protocol = ipv6.protocol;
    packet->payload = sizeof(ipv6);
    return true;
}

/* Neighbour discovery, group membership, errors and echo replies: the kernel's own part of IP, for what did pass. */
static inline bool is_the_kernels(struct __sk_buff *skb, u32 protocol) {
    u8 type = 0;
    if (protocol == PROTOCOL_IGMP)
        return true;
    if (protocol == PROTOCOL_ICMP)
        return !bpf_skb_load_bytes(skb, sizeof(struct ipv4_header), &type, 1) && type != ICMP_ECHO;
    u8 extension[2] = {PROTOCOL_ICMPV6, 0}; /* MLD has a hop-by-hop header of eight bytes (RFC 3810) */
    u32 at = sizeof(struct ipv6_header);
    if (protocol == PROTOCOL_HOP_BY_HOP) {
        if (bpf_skb_load_bytes(skb, at, extension, sizeof(extension)) || extension[1])
            return false;
        at += 8;
    } else if (protocol != PROTOCOL_ICMPV6) {
        return false;
    }
    return extension[0] == PROTOCOL_ICMPV6 && !bpf_skb_load_bytes(skb, at, &type, 1) && type != ICMPV6_ECHO;
}

/* By the rules that hold for every port of both. */
static inline int judge_whole(u32 endpoint, u32 direction, u32 protocol, const struct address *peer) {
    struct verdict tcp = judge(endpoint, direction, peer, false, PROTOCOL_TCP, 0);
    struct verdict udp = judge(endpoint, direction, peer, false, PROTOCOL_UDP, 0);
    if (tcp.action == PASS && udp.action == PASS)
        return ALLOW_PACKET; /* Safe: policy allows this peer whole. */
    if (passes(tcp.action) && passes(udp.action)) {
        count_verdict(endpoint, direction, AUDIT);
        tell_audited(endpoint, direction, tcp.identity, protocol, 0, peer);
        return ALLOW_PACKET; /* Safe: policy, as far as it is in force, does. */
    }
    count_verdict(endpoint, direction, DENY);
    tell_denied(endpoint, direction, tcp.identity, protocol, 0, peer);
    return DROP_PACKET; /* Safe: it has not left, or no socket has seen it. */
}

int kproxy_leaving(struct __sk_buff *skb) {
    if (is_ordinary(skb))
        return ALLOW_PACKET; /* Safe: the connect hooks have judged it, or it belongs to what was let in. */
    if (skb->ifindex == LOOPBACK_IFINDEX)
        return ALLOW_PACKET; /* Safe: it stays inside. */
    u64 netns = bpf_get_netns_cookie(skb);
    u32 *endpoint = namespaces.lookup(&netns);
    if (!endpoint)
        return ALLOW_PACKET; /* not under policy */
    struct packet packet = {};
    if (!read_header(skb, &packet))
        return DROP_PACKET; /* Safe: no packet is that short. */
    if (is_the_kernels(skb, packet.protocol))
        return ALLOW_PACKET;
    return judge_whole(*endpoint, EGRESS, packet.protocol, &packet.destination);
}

#define PACKET_LOOPBACK 5 /* include/uapi/linux/if_packet.h: our own multicast or broadcast, back from the device */
#define ESTABLISHED 1     /* include/net/tcp_states.h; of a UDP socket: it is connected */

/* TCP, or the datagram of a connected socket, which nobody but its peer can send it. */
static inline bool has_been_judged(struct __sk_buff *skb) {
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    u8 protocol;
    if (skb->protocol == ETHERTYPE_IPV6) {
        struct ipv6_header *ipv6 = data;
        if ((void *)(ipv6 + 1) > end)
            return false;
        protocol = ipv6->protocol;
    } else {
        struct ipv4_header *ipv4 = data;
        if ((void *)(ipv4 + 1) > end)
            return false;
        protocol = ipv4->protocol;
    }
    if (protocol == PROTOCOL_TCP)
        return true;
    struct bpf_sock *sk = skb->sk;
    return protocol == PROTOCOL_UDP && sk && sk->state == ESTABLISHED;
}

/* A datagram to none of the addresses that the pod is known by: if to a group, sk_lookup was not asked. */
static inline int judge_group_datagram(struct __sk_buff *skb, u32 endpoint, struct packet *packet) {
    u16 be_ports[2];
    if (bpf_skb_load_bytes(skb, packet->payload, be_ports, sizeof(be_ports)))
        return DROP_PACKET; /* Safe: it has no ports. */
    u16 port = bpf_ntohs(be_ports[1]);
    struct datagram_flow flow = datagram_flow(endpoint, &packet->source, bpf_ntohs(be_ports[0]), port);
    if (is_answer(&flow, INGRESS))
        return ALLOW_PACKET; /* Safe: as in sk_lookup; to an address of the pod that no file names. */
    struct verdict v = judge(endpoint, INGRESS, &packet->source, false, PROTOCOL_UDP, port);
    count_verdict(endpoint, INGRESS, passes(v.action) ? v.action : DENY);
    if (v.action == AUDIT)
        audit_datagram(&flow, INGRESS, v.identity, port);
    if (passes(v.action))
        return ALLOW_PACKET; /* Safe: L3/L4 policy, as far as it is in force, allows it. */
    tell_denied(endpoint, INGRESS, v.identity, PROTOCOL_UDP, port, &packet->source);
    return DROP_PACKET; /* Safe: this socket has not seen it. */
}

int kproxy_arriving(struct __sk_buff *skb) {
    if (has_been_judged(skb))
        return ALLOW_PACKET; /* Safe: by sk_lookup when it was set up, or by the connect hooks. */
    if (skb->ifindex == LOOPBACK_IFINDEX || skb->pkt_type == PACKET_LOOPBACK)
        return ALLOW_PACKET; /* Safe: it comes from inside. */
    u64 netns = bpf_get_netns_cookie(skb);
    u32 *endpoint = namespaces.lookup(&netns);
    if (!endpoint)
        return ALLOW_PACKET; /* not under policy */
    struct packet packet = {};
    if (!read_header(skb, &packet))
        return DROP_PACKET; /* Safe: no packet is that short. */
    if (packet.protocol == PROTOCOL_ICMP || packet.protocol == PROTOCOL_ICMPV6)
        return ALLOW_PACKET; /* Safe: of answers and errors; who reads more has a raw socket and no service. */
    if (packet.protocol != PROTOCOL_UDP)
        return judge_whole(*endpoint, INGRESS, packet.protocol, &packet.source);
    u32 *owner = own_addresses.lookup(&packet.destination);
    if (owner && *owner == *endpoint)
        return ALLOW_PACKET; /* Safe: sk_lookup has judged it. */
    return judge_group_datagram(skb, *endpoint, &packet);
}
