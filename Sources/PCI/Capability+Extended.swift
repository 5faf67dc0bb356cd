// Capabilities behind the first 256 bytes (PCI Express 3.0 §7.10 and the documents it names).
extension Capability {
    mutating func decodeExtended(_ image: ConfigurationImage) {
        let isWhole: Bool
        switch identifier {
        case 0x01: isWhole = errorReporting(image)
        case 0x03: isWhole = serialNumber(image)
        case 0x0b: isWhole = vendorSpecific(image)
        case 0x0d: isWhole = accessControl(image)
        case 0x0e: isWhole = routing(image)
        case 0x0f: isWhole = translation(image)
        case 0x10: isWhole = virtualization(image)
        case 0x1b: isWhole = addressSpaces(image)
        default: isWhole = true
        }
        if !isWhole { problems.append("pci/cap: it leaves configuration space") }
    }

    private mutating func errorReporting(_ image: ConfigurationImage) -> Bool {
        guard let status = image.long(offset + 4), let mask = image.long(offset + 8),
            let severity = image.long(offset + 12), let correctable = image.long(offset + 16),
            let correctableMask = image.long(offset + 20)
        else { return false }
        add("uncorrectable_status", .bits(UInt64(status)))
        add("uncorrectable_mask", .bits(UInt64(mask)))
        add("uncorrectable_severity", .bits(UInt64(severity)))
        add("correctable_status", .bits(UInt64(correctable)))
        add("correctable_mask", .bits(UInt64(correctableMask)))
        return true
    }

    private mutating func serialNumber(_ image: ConfigurationImage) -> Bool {
        var pairs: [String] = []
        for at in (4..<12).reversed() {
            guard let byte = image.byte(offset + at) else { return false }
            let text = String(byte, radix: 16)
            pairs.append(text.count == 1 ? "0" + text : text)
        }
        add("serial_number", .text(pairs.joined(separator: "-")))
        return true
    }

    private mutating func vendorSpecific(_ image: ConfigurationImage) -> Bool {
        guard let header = image.long(offset + 4) else { return false }
        add("id", .bits(UInt64(header & 0xffff)))
        add("revision", .number(UInt64(header >> 16 & 0xf)))
        add("length", .number(UInt64(header >> 20)))
        return true
    }

    private mutating func accessControl(_ image: ConfigurationImage) -> Bool {
        guard let capabilities = image.word(offset + 4), let control = image.word(offset + 6) else {
            return false
        }
        add("supported", .text(Self.accessControls(capabilities)))
        add("enabled", .text(Self.accessControls(control)))
        return true
    }

    private static func accessControls(_ bits: UInt16) -> String {
        let names = [
            "source validation", "translation blocking", "request redirect",
            "completion redirect", "upstream forwarding", "egress control",
            "direct translated",
        ]
        let set = names.enumerated().filter { bits & 1 << UInt16($0.offset) != 0 }.map(\.element)
        return set.isEmpty ? "none" : set.joined(separator: ", ")
    }

    private mutating func routing(_ image: ConfigurationImage) -> Bool {
        guard let capabilities = image.word(offset + 4) else { return false }
        add("next_function", .number(UInt64(capabilities >> 8)))
        return true
    }

    private mutating func translation(_ image: ConfigurationImage) -> Bool {
        guard let capabilities = image.word(offset + 4), let control = image.word(offset + 6) else {
            return false
        }
        add("queue_depth", .number(UInt64(capabilities & 0x1f)))
        add("enabled", .flag(control & 1 << 15 != 0))
        return true
    }

    private mutating func virtualization(_ image: ConfigurationImage) -> Bool {
        guard let control = image.word(offset + 8), let initial = image.word(offset + 12),
            let total = image.word(offset + 14), let number = image.word(offset + 16),
            let first = image.word(offset + 20), let stride = image.word(offset + 22),
            let device = image.word(offset + 26)
        else { return false }
        add("enabled", .flag(control & 1 != 0))
        add("initial_functions", .number(UInt64(initial)))
        add("total_functions", .number(UInt64(total)))
        add("functions", .number(UInt64(number)))
        add("first_offset", .number(UInt64(first)))
        add("stride", .number(UInt64(stride)))
        add("device", .bits(UInt64(device)))
        if number > total {
            problems.append("pci/cap: \(number) virtual functions of at most \(total)")
        }
        return true
    }

    private mutating func addressSpaces(_ image: ConfigurationImage) -> Bool {
        guard let capabilities = image.word(offset + 4), let control = image.word(offset + 6) else {
            return false
        }
        add("width", .number(UInt64(capabilities >> 8 & 0x1f)))
        add("enabled", .flag(control & 1 != 0))
        return true
    }
}
