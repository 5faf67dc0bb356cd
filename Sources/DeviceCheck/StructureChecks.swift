internal import PCI
internal import VirtioSpec

/// DEV-C: the virtio structures and where they lie.
struct StructureChecks {
    private let function: any PCIFunction
    private let structures: FoundStructures

    init(_ function: any PCIFunction, _ structures: FoundStructures) {
        self.function = function
        self.structures = structures
    }

    func run(_ log: CheckLog) {
        presence(log)
        shape(log)
        placement(log)
        notification(log)
        sharedMemory(log)
        window(log)
    }

    private func presence(_ log: CheckLog) {
        for (id, type, name) in [
            ("DEV-C-01", VirtioCapabilityType.common, "common configuration"),
            ("DEV-C-02", .notify, "notification"), ("DEV-C-03", .interruptStatus, "ISR status"),
            ("DEV-C-05", .configurationAccess, "PCI configuration access"),
        ] {
            log.check(id, "\(name) capability") {
                if let failure = structures.failure { throw failure }
                guard let found = structures.first(type) else { return .fail("there is none") }
                return .pass(type == .configurationAccess ? "present" : found.place)
            }
        }
        log.check("DEV-C-04", "device configuration capability") {
            guard let found = structures.first(.device) else {
                let type = try type()
                return DeviceConfigurationField.fields(of: type).isEmpty
                    ? .notApplicable("no configuration of \(type) is known")
                    : .fail("there is none")
            }
            return .pass(found.place)
        }
    }

    private func type() throws -> DeviceType {
        let device = try function.readConfiguration(ConfigurationHeader.device, .word)
        if device >= 0x1040 { return DeviceType(device - 0x1040) }
        return DeviceType(try function.readConfiguration(ConfigurationHeader.subsystem, .word))
    }

    private func shape(_ log: CheckLog) {
        log.check("DEV-C-06", "capability lengths") {
            let faults = structures.all.filter { $0.capability == nil }.map {
                "type \($0.type.rawValue) at \(hex($0.offset)) has \($0.statedLength) bytes"
            }
            return .none(faults, otherwise: "\(structures.all.count) capabilities")
        }
        log.check("DEV-C-07", "BAR numbers") {
            let faults = structures.placed.filter {
                Int($0.bar) >= ConfigurationHeader.baseAddressCount
            }.map(\.place)
            return .none(faults, otherwise: "all are 0 to 5")
        }
        log.check("DEV-C-08", "structures inside their BARs") {
            var faults: [String] = []
            for each in structures.placed
            where Int(each.bar) < ConfigurationHeader.baseAddressCount {
                let size = try function.barSize(Int(each.bar))
                if each.offset > size || each.length > size - each.offset {
                    faults.append("\(each.place), the BAR has \(hex(size))")
                }
            }
            return .none(faults, otherwise: "\(structures.placed.count) structures")
        }
        for (id, type, step, name) in [
            ("DEV-C-09", VirtioCapabilityType.common, UInt64(4), "common configuration"),
            ("DEV-C-10", .notify, 2, "notification"),
            ("DEV-C-11", .device, 4, "device configuration"),
        ] {
            log.check(id, "alignment of \(name)") {
                guard let found = structures.first(type) else { return .notApplicable("absent") }
                return .expect(found.offset % step == 0, found.place)
            }
        }
        log.check("DEV-C-12", "length of common configuration") {
            guard let common = structures.first(.common) else { return .notApplicable("absent") }
            return .expect(
                common.length >= UInt64(CommonConfiguration.leastLength),
                "\(common.length) bytes"
            )
        }
        log.check("DEV-C-13", "length of ISR status") {
            guard let found = structures.first(.interruptStatus) else {
                return .notApplicable("absent")
            }
            return .expect(found.length >= 1, "\(found.length) bytes")
        }
    }

    private func placement(_ log: CheckLog) {
        log.check("DEV-C-14", "structures apart from each other") {
            var faults: [String] = []
            let placed = structures.placed
            for (index, one) in placed.enumerated() {
                for other in placed[(index + 1)...]
                where one.bar == other.bar
                    && one.offset < other.offset &+ other.length
                    && other.offset < one.offset &+ one.length
                {
                    faults.append("\(one.place) and \(other.place)")
                }
            }
            return .none(faults, otherwise: "\(placed.count) structures, no two overlap")
        }
    }

    private func notification(_ log: CheckLog) {
        log.check("DEV-C-15", "notify multiplier") {
            guard let notify = structures.first(.notify) else { return .notApplicable("absent") }
            let multiplier = notify.multiplier
            let isGood =
                multiplier == 0 || (multiplier >= 2 && multiplier & (multiplier - 1) == 0)
            return .expect(isGood, "multiplier \(multiplier)")
        }
        log.check("DEV-C-16", "notify addresses of all queues") {
            guard let notify = structures.first(.notify),
                let registers = DeviceRegisters(function, structures)
            else { return .notApplicable("absent") }
            var faults: [String] = []
            let queues = try registers.queues()
            for queue in queues {
                try registers.select(queue)
                let offset = UInt64(try registers.read(.queueNotifyOffset))
                let end = offset * UInt64(notify.multiplier) + 2
                if end > notify.length {
                    faults.append("queue \(queue) ends at \(end) of \(notify.length)")
                }
            }
            return .none(faults, otherwise: "\(queues.count) queues in \(notify.length) bytes")
        }
    }

    private func sharedMemory(_ log: CheckLog) {
        log.check("DEV-C-17", "shared memory ids") {
            let ids = structures.all.compactMap(\.capability)
                .filter { $0.type == .sharedMemory }.map(\.id)
            guard !ids.isEmpty else { return .notApplicable("no shared memory") }
            return .expect(Set(ids).count == ids.count, "ids \(ids)")
        }
    }

    /// The window of the configuration-access capability shows what the BAR shows.
    private func window(_ log: CheckLog) {
        log.check("DEV-C-18", "access through configuration space") {
            guard
                let access = structures.all.first(where: {
                    $0.capability?.type == .configurationAccess
                }), let common = structures.first(.common),
                let registers = DeviceRegisters(function, structures)
            else { return .notApplicable("absent") }
            let at = access.offset
            let direct = try registers.read(.queueCount)
            let offset = common.offset + UInt64(CommonConfiguration.queueCount.offset)
            try function.writeConfiguration(
                at + VirtioCapability.accessBAR,
                .byte,
                UInt32(common.bar)
            )
            try function.writeConfiguration(
                at + VirtioCapability.accessOffset,
                .long,
                UInt32(truncatingIfNeeded: offset)
            )
            try function.writeConfiguration(at + VirtioCapability.accessLength, .long, 2)
            let seen = try function.readConfiguration(at + VirtioCapability.accessBytes, .word)
            return .expect(seen == direct, "num_queues \(direct) in the BAR, \(seen) by the window")
        }
    }
}
