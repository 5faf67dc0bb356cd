/// A field of a device's configuration space (virtio 1.3 §5).
public struct DeviceConfigurationField: Hashable, Sendable {
    /// How the bytes are to be read.
    public enum Form: Hashable, Sendable {
        /// An integer, least significant byte first.
        case number
        /// Bits with names, from bit 0 on.
        case flags([String])
        /// An Ethernet address.
        case address
        /// Characters up to the first zero byte.
        case text
    }

    /// The specification's name.
    public let name: String
    /// Offset of the first byte.
    public let offset: Int
    /// Length in bytes.
    public let length: Int
    /// How to read it.
    public let form: Form
    /// The field has a meaning only with one of these features; any when empty.
    public let features: FeatureBits

    init(
        _ name: String,
        _ offset: Int,
        _ length: Int,
        _ form: Form = .number,
        bits: [UInt8] = []
    ) {
        self.name = name
        self.offset = offset
        self.length = length
        self.form = form
        features = bits.reduce(into: []) { $0.insert(FeatureBits(bit: $1)) }
    }

    /// What the bytes say.
    public func text(_ bytes: [UInt8]) -> String {
        switch form {
        case .number: return String(Self.number(bytes))
        case .flags(let names):
            let value = Self.number(bytes)
            let list = names.enumerated().filter { value >> UInt64($0.offset) & 1 == 1 }
                .map(\.element)
            return list.isEmpty ? "\(value)" : "\(value) (\(list.joined(separator: ", ")))"
        case .address:
            return bytes.map { byte in
                let text = String(byte, radix: 16)
                return text.count == 1 ? "0" + text : text
            }.joined(separator: ":")
        case .text:
            // Nothing that a terminal would obey.
            return String(
                decoding: bytes.prefix { $0 != 0 }.map { (0x20..<0x7f).contains($0) ? $0 : 0x3f },
                as: UTF8.self
            )
        }
    }

    private static func number(_ bytes: [UInt8]) -> UInt64 {
        bytes.prefix(8).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    }

    /// The fields of a device type in the order of their offsets; empty for types without any, and
    /// for those that this program does not know.
    public static func fields(of type: DeviceType) -> [DeviceConfigurationField] {
        table[type] ?? []
    }

    private static let table: [DeviceType: [DeviceConfigurationField]] = [
        // virtio 1.3 §5.1.4
        .net: [
            .init("mac", 0, 6, .address, bits: [5]),
            .init("status", 6, 2, .flags(["LINK_UP", "ANNOUNCE"]), bits: [16]),
            .init("max_virtqueue_pairs", 8, 2, bits: [22, 60]), .init("mtu", 10, 2, bits: [3]),
            .init("speed", 12, 4, bits: [63]), .init("duplex", 16, 1, bits: [63]),
            .init("rss_max_key_size", 17, 1, bits: [57, 60]),
            .init("rss_max_indirection_table_length", 18, 2, bits: [60]),
            .init("supported_hash_types", 20, 4, bits: [57, 60]),
        ],
        // virtio 1.3 §5.2.4
        .block: [
            .init("capacity", 0, 8), .init("size_max", 8, 4, bits: [1]),
            .init("seg_max", 12, 4, bits: [2]), .init("cylinders", 16, 2, bits: [4]),
            .init("heads", 18, 1, bits: [4]), .init("sectors", 19, 1, bits: [4]),
            .init("blk_size", 20, 4, bits: [6]), .init("physical_block_exp", 24, 1, bits: [10]),
            .init("alignment_offset", 25, 1, bits: [10]),
            .init("min_io_size", 26, 2, bits: [10]), .init("opt_io_size", 28, 4, bits: [10]),
            .init("writeback", 32, 1, bits: [11]), .init("num_queues", 34, 2, bits: [12]),
            .init("max_discard_sectors", 36, 4, bits: [13]),
            .init("max_discard_seg", 40, 4, bits: [13]),
            .init("discard_sector_alignment", 44, 4, bits: [13]),
            .init("max_write_zeroes_sectors", 48, 4, bits: [14]),
            .init("max_write_zeroes_seg", 52, 4, bits: [14]),
        ],
        // virtio 1.3 §5.3.4
        .console: [
            .init("cols", 0, 2, bits: [0]), .init("rows", 2, 2, bits: [0]),
            .init("max_nr_ports", 4, 4, bits: [1]),
        ],
        // virtio 1.3 §5.5.4
        .balloon: [
            .init("num_pages", 0, 4), .init("actual", 4, 4),
            .init("free_page_hint_cmd_id", 8, 4, bits: [3]),
            .init("poison_val", 12, 4, bits: [4]),
        ],
        // virtio 1.3 §5.6.4
        .scsi: [
            .init("num_queues", 0, 4), .init("seg_max", 4, 4), .init("max_sectors", 8, 4),
            .init("cmd_per_lun", 12, 4), .init("event_info_size", 16, 4),
            .init("sense_size", 20, 4), .init("cdb_size", 24, 4), .init("max_channel", 28, 2),
            .init("max_target", 30, 2), .init("max_lun", 32, 4),
        ],
        // virtio 1.3 §5.7.4
        .gpu: [
            .init("events_read", 0, 4), .init("num_scanouts", 8, 4),
            .init("num_capsets", 12, 4),
        ],
        // virtio 1.3 §5.10.4
        .socket: [.init("guest_cid", 0, 8)],
        // virtio 1.3 §5.11.4
        .fileSystem: [
            .init("tag", 0, 36, .text), .init("num_request_queues", 36, 4),
            .init("notify_buf_size", 40, 4, bits: [0]),
        ],
    ]
}
