public import VirtioSpec

// Capabilities of the first 256 bytes (PCI Local Bus 3.0 §6.7 and the documents it names).
extension Capability {
    mutating func decode(_ image: ConfigurationImage, _ bars: BARSizes, isVirtio: Bool) {
        let isWhole: Bool
        switch identifier {
        case 0x01: isWhole = powerManagement(image)
        case 0x05: isWhole = messages(image)
        case 0x09 where isVirtio: isWhole = virtioStructure(image, bars)
        case 0x09: isWhole = length(image)
        case 0x10: isWhole = express(image)
        case 0x11: isWhole = messageTable(image, bars)
        case 0x13: isWhole = advancedFeatures(image)
        default: isWhole = true
        }
        if !isWhole { problems.append("pci/cap: it leaves configuration space") }
    }

    // PCI Bus Power Management 1.2 §3.2.
    private mutating func powerManagement(_ image: ConfigurationImage) -> Bool {
        guard let capabilities = image.word(offset + 2), let control = image.word(offset + 4) else {
            return false
        }
        add("version", .number(UInt64(capabilities & 7)))
        add("d1", .flag(capabilities & 1 << 9 != 0))
        add("d2", .flag(capabilities & 1 << 10 != 0))
        add("state", .text("D\(control & 3)"))
        add("no_soft_reset", .flag(control & 1 << 3 != 0))
        add("pme_enabled", .flag(control & 1 << 8 != 0))
        return true
    }

    // PCI Local Bus 3.0 §6.8.1.
    private mutating func messages(_ image: ConfigurationImage) -> Bool {
        guard let control = image.word(offset + 2) else { return false }
        add("enabled", .flag(control & 1 != 0))
        add("vectors_enabled", .number(1 << UInt64(control >> 4 & 7)))
        add("vectors", .number(1 << UInt64(control >> 1 & 7)))
        add("maskable", .flag(control & 1 << 8 != 0))
        add("64bit", .flag(control & 1 << 7 != 0))
        return true
    }

    // PCI Local Bus 3.0 §6.8.2.
    private mutating func messageTable(_ image: ConfigurationImage, _ bars: BARSizes) -> Bool {
        guard let control = image.word(offset + 2), let table = image.long(offset + 4),
            let pending = image.long(offset + 8)
        else { return false }
        let count = UInt64(control & 0x7ff) + 1
        add("enabled", .flag(control & MSIXTable.enableBit != 0))
        add("masked", .flag(control & MSIXTable.functionMaskBit != 0))
        add("vectors", .number(count))
        add("table_bar", .number(UInt64(table & 7)))
        add("table_offset", .bits(UInt64(table & ~7)))
        add("pending_bar", .number(UInt64(pending & 7)))
        add("pending_offset", .bits(UInt64(pending & ~7)))
        let ranges = [
            ("the vector table", table, count * UInt64(MSIXTable.entryLength)),
            ("the pending-bit array", pending, (count + 63) / 64 * 8),
        ]
        for (what, place, length) in ranges {
            let problem = bars.problem(
                what,
                bar: Int(place & 7),
                offset: UInt64(place & ~7),
                length: length
            )
            if let problem { problems.append("pci/cap: \(problem)") }
        }
        return true
    }

    // PCI Express 3.0 §7.8.
    private mutating func express(_ image: ConfigurationImage) -> Bool {
        guard let flags = image.word(offset + 2), let capabilities = image.long(offset + 4),
            let control = image.word(offset + 8), let status = image.word(offset + 10),
            let linkCapabilities = image.long(offset + 12), let link = image.word(offset + 18)
        else { return false }
        let type = flags >> 4 & 0xf
        add("version", .number(UInt64(flags & 0xf)))
        add("type", .text(Self.portTypes[type] ?? "type \(type)"))
        add("function_level_reset", .flag(capabilities & 1 << 28 != 0))
        add("maximum_payload", .number(128 << UInt64(control >> 5 & 7)))
        add("maximum_payload_supported", .number(128 << UInt64(capabilities & 7)))
        add("maximum_read_request", .number(128 << UInt64(control >> 12 & 7)))
        let errors = ["correctable", "non-fatal", "fatal", "unsupported request"].enumerated()
            .filter { status & 1 << UInt16($0.offset) != 0 }.map(\.element)
        add("errors_detected", .text(errors.isEmpty ? "none" : errors.joined(separator: ", ")))
        // A function inside the root complex has no link (PCI Express 3.0 §7.8.6).
        guard linkCapabilities & 0x3ff != 0 else { return true }
        add("link_speed", .text(Self.speed(link & 0xf)))
        add("link_width", .number(UInt64(link >> 4 & 0x3f)))
        add("link_speed_supported", .text(Self.speed(UInt16(linkCapabilities & 0xf))))
        add("link_width_supported", .number(UInt64(linkCapabilities >> 4 & 0x3f)))
        return true
    }

    private static let portTypes: [UInt16: String] = [
        0: "Endpoint", 1: "Legacy Endpoint", 4: "Root Port", 5: "Upstream Port",
        6: "Downstream Port", 7: "PCI-Express to PCI/PCI-X Bridge",
        8: "PCI/PCI-X to PCI-Express Bridge", 9: "Root Complex Integrated Endpoint",
        10: "Root Complex Event Collector",
    ]

    private static func speed(_ code: UInt16) -> String {
        let speeds = ["2.5GT/s", "5GT/s", "8GT/s", "16GT/s", "32GT/s", "64GT/s"]
        guard code >= 1, code <= speeds.count else { return "unknown" }
        return speeds[Int(code) - 1]
    }

    // PCI Advanced Capabilities ECN, 2006.
    private mutating func advancedFeatures(_ image: ConfigurationImage) -> Bool {
        guard let capabilities = image.byte(offset + 3) else { return false }
        add("function_level_reset", .flag(capabilities & 1 << 1 != 0))
        return true
    }

    private mutating func length(_ image: ConfigurationImage) -> Bool {
        guard let length = image.byte(offset + 2) else { return false }
        add("length", .number(UInt64(length)))
        return true
    }
}

// Virtio structures (virtio 1.3 §4.1.4).
extension Capability {
    /// The word for a structure's type, `nil` for those that this program does not know.
    public static func virtioName(_ type: VirtioCapabilityType) -> String? {
        switch type {
        case .common: "common configuration"
        case .notify: "notification"
        case .interruptStatus: "interrupt status"
        case .device: "device configuration"
        case .configurationAccess: "configuration access"
        case .sharedMemory: "shared memory"
        case .vendor: "vendor"
        case .peerNotify: "peer notification"
        default: nil
        }
    }

    private mutating func virtioStructure(_ image: ConfigurationImage, _ bars: BARSizes) -> Bool {
        guard let stated = image.byte(offset + 2), let number = image.byte(offset + 3) else {
            return false
        }
        let type = VirtioCapabilityType(rawValue: number)
        add("structure", .text(Self.virtioName(type) ?? "unknown"))
        add("type", .number(UInt64(number)))
        add("length", .number(UInt64(stated)))
        if type == .vendor { return vendorStructure(image, stated) }
        let end = min(offset + VirtioCapabilityType.sharedMemory.length, image.bytes.count)
        guard let structure = VirtioCapability(bytes: image.bytes[offset..<end]) else {
            problems.append("pci/cap: \(stated) bytes are too few for type \(number)")
            return true
        }
        virtio = structure
        add("bar", .number(UInt64(structure.bar)))
        if type == .sharedMemory { add("id", .number(UInt64(structure.id))) }
        add("offset", .bits(structure.offset))
        add("size", .bits(structure.length))
        if type == .notify || type == .peerNotify {
            add("multiplier", .number(UInt64(structure.multiplier)))
            let stride = structure.multiplier
            if stride != 0, stride < 2 || stride & (stride - 1) != 0 {
                problems.append("pci/notify-range: multiplier \(stride) is no power of two")
            }
        }
        // Configuration access names what was last asked for; of unknown types nothing is known.
        if Self.virtioName(type) != nil, type != .configurationAccess {
            let problem = bars.problem(
                "the structure",
                bar: Int(structure.bar),
                offset: structure.offset,
                length: structure.length
            )
            if let problem { problems.append("pci/cap: \(problem)") }
        }
        return true
    }

    private mutating func vendorStructure(_ image: ConfigurationImage, _ stated: UInt8) -> Bool {
        guard let vendor = image.word(offset + 4) else { return false }
        add("vendor", .bits(UInt64(vendor)))
        if stated < 6 { problems.append("pci/cap: \(stated) bytes are too few for type 9") }
        return true
    }
}
