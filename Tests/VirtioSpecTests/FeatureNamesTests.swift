import CLinuxVirtio
import Testing
import VirtioSpec

@Suite struct FeatureNamesTests {
    @Test func `device-independent names are the kernel's`() {
        for (name, bit) in [
            ("VERSION_1", VIRTIO_F_VERSION_1), ("ACCESS_PLATFORM", VIRTIO_F_ACCESS_PLATFORM),
            ("RING_PACKED", VIRTIO_F_RING_PACKED), ("ORDER_PLATFORM", VIRTIO_F_ORDER_PLATFORM),
            ("SR_IOV", VIRTIO_F_SR_IOV), ("RING_RESET", VIRTIO_F_RING_RESET),
            ("NOTIFY_ON_EMPTY", VIRTIO_F_NOTIFY_ON_EMPTY), ("ANY_LAYOUT", VIRTIO_F_ANY_LAYOUT),
        ] {
            #expect(FeatureBits.name(ofBit: UInt8(bit), for: DeviceType(9999)) == name)
        }
    }

    @Test func `network names are the kernel's`() {
        for (name, bit) in [
            ("CSUM", VIRTIO_NET_F_CSUM), ("GUEST_CSUM", VIRTIO_NET_F_GUEST_CSUM),
            ("CTRL_GUEST_OFFLOADS", VIRTIO_NET_F_CTRL_GUEST_OFFLOADS),
            ("MTU", VIRTIO_NET_F_MTU), ("MAC", VIRTIO_NET_F_MAC),
            ("GUEST_TSO4", VIRTIO_NET_F_GUEST_TSO4), ("GUEST_TSO6", VIRTIO_NET_F_GUEST_TSO6),
            ("GUEST_ECN", VIRTIO_NET_F_GUEST_ECN), ("GUEST_UFO", VIRTIO_NET_F_GUEST_UFO),
            ("HOST_TSO4", VIRTIO_NET_F_HOST_TSO4), ("HOST_TSO6", VIRTIO_NET_F_HOST_TSO6),
            ("HOST_ECN", VIRTIO_NET_F_HOST_ECN), ("HOST_UFO", VIRTIO_NET_F_HOST_UFO),
            ("MRG_RXBUF", VIRTIO_NET_F_MRG_RXBUF), ("STATUS", VIRTIO_NET_F_STATUS),
            ("CTRL_VQ", VIRTIO_NET_F_CTRL_VQ), ("CTRL_RX", VIRTIO_NET_F_CTRL_RX),
            ("CTRL_VLAN", VIRTIO_NET_F_CTRL_VLAN), ("MQ", VIRTIO_NET_F_MQ),
            ("GUEST_ANNOUNCE", VIRTIO_NET_F_GUEST_ANNOUNCE),
            ("CTRL_MAC_ADDR", VIRTIO_NET_F_CTRL_MAC_ADDR), ("RSS", VIRTIO_NET_F_RSS),
            ("HASH_REPORT", VIRTIO_NET_F_HASH_REPORT), ("RSC_EXT", VIRTIO_NET_F_RSC_EXT),
            ("STANDBY", VIRTIO_NET_F_STANDBY), ("SPEED_DUPLEX", VIRTIO_NET_F_SPEED_DUPLEX),
        ] {
            #expect(FeatureBits.name(ofBit: UInt8(bit), for: .net) == name)
        }
    }

    @Test func `names of other types are the kernel's`() {
        let names: [(DeviceType, String, Int32)] = [
            (.block, "SEG_MAX", VIRTIO_BLK_F_SEG_MAX), (.block, "RO", VIRTIO_BLK_F_RO),
            (.block, "FLUSH", VIRTIO_BLK_F_FLUSH), (.block, "MQ", VIRTIO_BLK_F_MQ),
            (.block, "DISCARD", VIRTIO_BLK_F_DISCARD),
            (.block, "WRITE_ZEROES", VIRTIO_BLK_F_WRITE_ZEROES),
            (.console, "SIZE", VIRTIO_CONSOLE_F_SIZE),
            (.console, "MULTIPORT", VIRTIO_CONSOLE_F_MULTIPORT),
            (.balloon, "STATS_VQ", VIRTIO_BALLOON_F_STATS_VQ),
            (.balloon, "PAGE_POISON", VIRTIO_BALLOON_F_PAGE_POISON),
            (.socket, "SEQPACKET", VIRTIO_VSOCK_F_SEQPACKET),
        ]
        for (type, name, bit) in names {
            #expect(FeatureBits.name(ofBit: UInt8(bit), for: type) == name)
        }
    }

    @Test func `a bit without a name is shown by its number`() {
        #expect(FeatureBits(bit: 49).names(for: .net) == ["bit 49"])
        #expect(FeatureBits(bit: 5).names(for: DeviceType(0)) == ["bit 5"])
        #expect(FeatureBits(bit: 255).names(for: .net).isEmpty)
        #expect(FeatureBits([.netMAC, .version1]).names(for: .net) == ["MAC", "VERSION_1"])
    }
}
