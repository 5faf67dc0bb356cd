// The specification's names of feature bits, without VIRTIO_F_ and the like in front of them.
extension FeatureBits {
    /// The name of a bit for a device type, `nil` for bits that have none here.
    public static func name(ofBit bit: UInt8, for type: DeviceType) -> String? {
        independentNames[bit] ?? deviceNames[type]?[bit]
    }

    /// Names of the set bits, ascending; bits without a name as `bit 50`.
    public func names(for type: DeviceType) -> [String] {
        bits.map { Self.name(ofBit: $0, for: type) ?? "bit \($0)" }
    }

    // virtio 1.3 §6 and §6.3, the reserved bits of the legacy interface included.
    private static let independentNames: [UInt8: String] = [
        24: "NOTIFY_ON_EMPTY", 27: "ANY_LAYOUT", 28: "INDIRECT_DESC", 29: "EVENT_IDX",
        32: "VERSION_1", 33: "ACCESS_PLATFORM", 34: "RING_PACKED", 35: "IN_ORDER",
        36: "ORDER_PLATFORM", 37: "SR_IOV", 38: "NOTIFICATION_DATA", 39: "NOTIF_CONFIG_DATA",
        40: "RING_RESET", 41: "ADMIN_VQ",
    ]

    private static let deviceNames: [DeviceType: [UInt8: String]] = [
        // virtio 1.3 §5.1.3
        .net: [
            0: "CSUM", 1: "GUEST_CSUM", 2: "CTRL_GUEST_OFFLOADS", 3: "MTU", 5: "MAC", 6: "GSO",
            7: "GUEST_TSO4", 8: "GUEST_TSO6", 9: "GUEST_ECN", 10: "GUEST_UFO", 11: "HOST_TSO4",
            12: "HOST_TSO6", 13: "HOST_ECN", 14: "HOST_UFO", 15: "MRG_RXBUF", 16: "STATUS",
            17: "CTRL_VQ", 18: "CTRL_RX", 19: "CTRL_VLAN", 20: "CTRL_RX_EXTRA",
            21: "GUEST_ANNOUNCE", 22: "MQ", 23: "CTRL_MAC_ADDR", 50: "DEVICE_STATS",
            51: "HASH_TUNNEL", 52: "VQ_NOTF_COAL", 53: "NOTF_COAL", 54: "GUEST_USO4",
            55: "GUEST_USO6", 56: "HOST_USO", 57: "HASH_REPORT", 59: "GUEST_HDRLEN", 60: "RSS",
            61: "RSC_EXT", 62: "STANDBY", 63: "SPEED_DUPLEX",
        ],
        // virtio 1.3 §5.2.3
        .block: [
            0: "BARRIER", 1: "SIZE_MAX", 2: "SEG_MAX", 4: "GEOMETRY", 5: "RO", 6: "BLK_SIZE",
            7: "SCSI", 9: "FLUSH", 10: "TOPOLOGY", 11: "CONFIG_WCE", 12: "MQ", 13: "DISCARD",
            14: "WRITE_ZEROES", 15: "LIFETIME", 16: "SECURE_ERASE", 17: "ZONED",
        ],
        // virtio 1.3 §5.3.3
        .console: [0: "SIZE", 1: "MULTIPORT", 2: "EMERG_WRITE"],
        // virtio 1.3 §5.5.3
        .balloon: [
            0: "MUST_TELL_HOST", 1: "STATS_VQ", 2: "DEFLATE_ON_OOM", 3: "FREE_PAGE_HINT",
            4: "PAGE_POISON", 5: "PAGE_REPORTING",
        ],
        // virtio 1.3 §5.6.3
        .scsi: [0: "INOUT", 1: "HOTPLUG", 2: "CHANGE", 3: "T10_PI"],
        // virtio 1.3 §5.7.3
        .gpu: [0: "VIRGL", 1: "EDID", 2: "RESOURCE_UUID", 3: "RESOURCE_BLOB", 4: "CONTEXT_INIT"],
        // virtio 1.3 §5.10.3
        .socket: [0: "STREAM", 1: "SEQPACKET"],
        // virtio 1.3 §5.11.3
        .fileSystem: [0: "NOTIFICATION"],
        // Those of its peer, a virtio-net device.
        .vhostPCINet: [15: "MRG_RXBUF"],
        .management: [0: "CLASS_DIALECT", 1: "VIRTUAL_DEVICE_DIALECT"],
    ]
}
