internal import PCI
internal import Virtio
internal import VirtioSpec

/// DEV-P: the PCI function around the device.
struct FunctionChecks {
    private let function: any PCIFunction

    init(_ function: any PCIFunction) {
        self.function = function
    }

    func run(_ log: CheckLog) {
        identity(log)
        log.check("DEV-P-05", "header type") {
            let type = try read(ConfigurationHeader.headerType, .byte) & 0x7f
            return .expect(type == 0, "header type \(type)")
        }
        capabilities(log)
        bars(log)
        command(log)
        interrupts(log)
    }

    private func read(_ offset: Int, _ width: AccessWidth) throws(PCIError) -> UInt32 {
        try function.readConfiguration(offset, width)
    }

    private func identity(_ log: CheckLog) {
        log.check("DEV-P-01", "vendor id") {
            let vendor = try read(ConfigurationHeader.vendor, .word)
            return .expect(vendor == UInt32(PCITransport.vendor), "vendor \(hex(vendor))")
        }
        log.check("DEV-P-02", "device id") {
            let device = try read(ConfigurationHeader.device, .word)
            return .expect((0x1000...0x107f).contains(device), "device \(hex(device))")
        }
        log.check("DEV-P-03", "revision id") {
            let device = try read(ConfigurationHeader.device, .word)
            let revision = try read(ConfigurationHeader.revision, .byte)
            let isTransitional = device < 0x1040
            return .expect(
                isTransitional ? revision == 0 : revision >= 1,
                "device \(hex(device)), revision \(revision)"
            )
        }
        log.check("DEV-P-04", "subsystem device id") {
            let device = try read(ConfigurationHeader.device, .word)
            let subsystem = try read(ConfigurationHeader.subsystem, .word)
            guard device >= 0x1040 else {
                return .notApplicable("transitional; subsystem \(hex(subsystem)) is the type")
            }
            return .expect(subsystem >= 0x40, "subsystem \(hex(subsystem))")
        }
    }

    private func capabilities(_ log: CheckLog) {
        log.check("DEV-P-06", "capability list bit") {
            let status = try read(ConfigurationHeader.status, .word)
            return .expect(status & (1 << 4) != 0, "status \(hex(status))")
        }
        log.check("DEV-P-07", "capability list") {
            let list = try CapabilityList(function)
            let offsets = list.entries.map(\.offset)
            return .expect(
                !offsets.isEmpty && Set(offsets).count == offsets.count,
                "\(offsets.count) capabilities at \(offsets.map { hex($0) }.joined(separator: " "))"
            )
        }
        log.check("DEV-P-08", "capability pointers") {
            var faults: [String] = []
            var at = try read(ConfigurationHeader.capabilities, .byte)
            if at & 3 != 0 { faults.append("first pointer \(hex(at))") }
            for entry in try CapabilityList(function).entries {
                at = try read(entry.offset + 1, .byte)
                if at & 3 != 0 { faults.append("pointer \(hex(at)) at \(hex(entry.offset))") }
            }
            return .none(faults, otherwise: "all are multiples of 4")
        }
        log.check("DEV-P-09", "read-only ids") {
            let before = try read(ConfigurationHeader.vendor, .long)
            try function.writeConfiguration(ConfigurationHeader.vendor, .long, ~before)
            let after = try read(ConfigurationHeader.vendor, .long)
            return .expect(before == after, "\(hex(before)) before, \(hex(after)) after a write")
        }
    }

    private func bars(_ log: CheckLog) {
        log.check("DEV-P-10", "BAR sizes") {
            var faults: [String] = []
            var sizes: [String] = []
            for bar in 0..<ConfigurationHeader.baseAddressCount {
                let size = try function.barSize(bar)
                guard size > 0 else { continue }
                sizes.append("BAR \(bar) \(size)")
                if size & (size - 1) != 0 { faults.append("BAR \(bar) has \(size) bytes") }
            }
            if sizes.isEmpty { faults.append("there is no BAR") }
            return .none(faults, otherwise: sizes.joined(separator: ", ") + " bytes")
        }
    }

    private func command(_ log: CheckLog) {
        for (id, bit, name) in [
            ("DEV-P-11", CommandRegister.memorySpace, "memory space enable"),
            ("DEV-P-12", CommandRegister.busMaster, "bus master enable"),
            ("DEV-P-13", CommandRegister.interruptDisable, "INTx disable"),
        ] {
            log.check(id, name) {
                let before = try read(ConfigurationHeader.command, .word)
                let wanted = before | UInt32(bit.rawValue)
                try function.writeConfiguration(ConfigurationHeader.command, .word, wanted)
                let after = try read(ConfigurationHeader.command, .word)
                // Not before a reset: rings of an earlier driver may still be in use.
                if bit == .busMaster {
                    try function.writeConfiguration(ConfigurationHeader.command, .word, before)
                }
                return .expect(after & UInt32(bit.rawValue) != 0, "command \(hex(after))")
            }
        }
    }

    private func interrupts(_ log: CheckLog) {
        log.check("DEV-P-14", "MSI-X capability") {
            guard let entry = try CapabilityList(function).first(MSIXTable.identifier) else {
                return .fail("there is none: interrupts are shared and slow")
            }
            let control = try read(entry.offset + MSIXTable.controlOffset, .word)
            return .pass("\((control & 0x7ff) + 1) vectors")
        }
        log.check("DEV-P-15", "MSI-X table and pending bits") {
            guard let entry = try CapabilityList(function).first(MSIXTable.identifier) else {
                return .notApplicable("no MSI-X")
            }
            let control = try read(entry.offset + MSIXTable.controlOffset, .word)
            let count = UInt64(control & 0x7ff) + 1
            var faults: [String] = []
            for (name, at, length) in [
                ("table", 4, count * 16), ("pending bits", 8, (count + 63) / 64 * 8),
            ] {
                let place = try read(entry.offset + at, .long)
                let bar = Int(place & 7)
                let offset = UInt64(place & ~7)
                let size =
                    bar < ConfigurationHeader.baseAddressCount ? try function.barSize(bar) : 0
                if offset > size || length > size - offset {
                    faults.append(
                        "\(name): \(length) bytes at \(hex(offset)) of BAR \(bar), \(size)"
                    )
                }
            }
            return .none(faults, otherwise: "both lie in their BARs, \(count) vectors")
        }
    }
}
