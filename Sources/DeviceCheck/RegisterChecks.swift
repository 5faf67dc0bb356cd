internal import PCI
internal import VirtioSpec

/// DEV-R: the common configuration of a device in reset.
struct RegisterChecks {
    private let function: any PCIFunction
    private let registers: DeviceRegisters
    private let structures: FoundStructures

    init(
        _ function: any PCIFunction,
        _ registers: DeviceRegisters,
        _ structures: FoundStructures
    ) {
        self.function = function
        self.registers = registers
        self.structures = structures
    }

    func run(_ log: CheckLog) {
        reset(log)
        queues(log)
        selectors(log)
        vectors(log)
        log.check("DEV-R-13", "configuration generation at rest") {
            let first = try registers.read(.configurationGeneration)
            for _ in 0..<100 {
                let next = try registers.read(.configurationGeneration)
                if next != first { return .fail("\(first), then \(next)") }
            }
            return .pass("\(first), 101 times")
        }
        administration(log)
    }

    private func reset(_ log: CheckLog) {
        for (id, subject) in [("DEV-R-01", "reset"), ("DEV-R-02", "reset of a device in reset")] {
            log.check(id, subject) {
                guard let time = try registers.reset() else {
                    return .fail(
                        "status is \(try registers.status()) after"
                            + " \(DeviceRegisters.resetMilliseconds) ms"
                    )
                }
                return .pass("status 0 after \(time) us")
            }
        }
    }

    private func queues(_ log: CheckLog) {
        log.check("DEV-R-03", "number of queues") {
            let count = try registers.read(.queueCount)
            return .expect(count >= 1, "num_queues \(count)")
        }
        eachQueue(log, "DEV-R-04", "queue sizes", .queueSize) { size in
            size == 0 || (size <= 32768 && size & (size - 1) == 0)
        }
        eachQueue(log, "DEV-R-05", "queues disabled after reset", .queueEnable) { $0 == 0 }
        log.check("DEV-R-06", "queue that does not exist") {
            let count = try registers.read(.queueCount)
            let admin =
                registers.has(.adminQueueCount) ? try registers.read(.adminQueueCount) : 0
            guard count < 0xffff, admin == 0 else { return .notApplicable("\(count) queues") }
            try registers.write(.queueSelect, count)
            let size = try registers.read(.queueSize)
            return .expect(size == 0, "queue \(count) has size \(size)")
        }
        log.check("DEV-R-07", "smaller queue size") {
            guard let queue = try registers.prepareQueue() else {
                return .fail("no queue has a size")
            }
            let largest = try registers.read(.queueSize)
            guard largest >= 2 else { return .notApplicable("size \(largest)") }
            try registers.write(.queueSize, largest / 2)
            let seen = try registers.read(.queueSize)
            return .expect(seen == largest / 2, "queue \(queue): \(largest / 2) reads \(seen)")
        }
        log.check("DEV-R-08", "queue size after reset") {
            guard try registers.prepareQueue() != nil else {
                return .fail("no queue has a size")
            }
            let before = try registers.read(.queueSize)
            try registers.write(.queueSize, max(1, before / 2))
            _ = try registers.prepareQueue()
            let after = try registers.read(.queueSize)
            return .expect(after == before, "\(before) before, \(after) after")
        }
        log.check("DEV-R-09", "queue addresses") {
            guard let queue = try registers.prepareQueue() else {
                return .fail("no queue has a size")
            }
            var faults: [String] = []
            for (low, high, name) in [
                (CommonConfiguration.queueDescriptorLow, .queueDescriptorHigh, "descriptors"),
                (.queueDriverLow, .queueDriverHigh, "driver area"),
                (.queueDeviceLow, CommonConfiguration.queueDeviceHigh, "device area"),
            ] {
                try registers.write(low, 0x89ab_c000)
                try registers.write(high, 0x12)
                let seen = (try registers.read(low), try registers.read(high))
                if seen != (0x89ab_c000, 0x12) {
                    faults.append("\(name) reads \(hex(seen.1)) \(hex(seen.0))")
                }
            }
            guard try registers.reset() != nil else { throw CheckProblem.notReset }
            return .none(faults, otherwise: "queue \(queue) keeps all three")
        }
    }

    private func eachQueue(
        _ log: CheckLog,
        _ id: String,
        _ subject: String,
        _ register: CommonConfiguration,
        _ isGood: (UInt32) -> Bool
    ) {
        log.check(id, subject) {
            var values: [UInt32] = []
            var faults: [String] = []
            for queue in try registers.queues() {
                try registers.select(queue)
                let value = try registers.read(register)
                values.append(value)
                if !isGood(value) { faults.append("queue \(queue): \(value)") }
            }
            let list = values.map(String.init).joined(separator: " ")
            return .none(faults, otherwise: values.isEmpty ? "no queue" : list)
        }
    }

    private func selectors(_ log: CheckLog) {
        log.check("DEV-R-10", "feature selectors") {
            var faults: [String] = []
            for register in [CommonConfiguration.deviceFeatureSelect, .driverFeatureSelect] {
                for value: UInt32 in [1, 0] {
                    try registers.write(register, value)
                    let seen = try registers.read(register)
                    if seen != value { faults.append("\(value) reads \(seen)") }
                }
            }
            return .none(faults, otherwise: "both keep 0 and 1")
        }
        log.check("DEV-R-11", "offered features") {
            let first = try registers.offeredFeatures()
            let second = try registers.offeredFeatures()
            return .expect(first == second, "\(hex(first.rawValue)), then \(hex(second.rawValue))")
        }
        log.check("DEV-R-12", "queue selector") {
            let queues = try registers.queues()
            for queue in queues {
                try registers.select(queue)
                let seen = try registers.read(.queueSelect)
                if seen != UInt32(queue) { return .fail("\(queue) reads \(seen)") }
            }
            return .pass("keeps its value for \(queues.count) queues")
        }
    }

    private func vectors(_ log: CheckLog) {
        log.check("DEV-R-14", "vectors after reset") {
            guard try function.interruptVectorCount > 0 else {
                return .notApplicable("MSI-X is not available here")
            }
            _ = try registers.reset()
            var faults: [String] = []
            let configuration = try registers.read(.configurationVector)
            if configuration != UInt32(CommonConfiguration.noVector) {
                faults.append("configuration vector \(hex(configuration))")
            }
            for queue in try registers.queues() {
                try registers.select(queue)
                let vector = try registers.read(.queueVector)
                if vector != UInt32(CommonConfiguration.noVector) {
                    faults.append("queue \(queue) vector \(hex(vector))")
                }
            }
            return .none(faults, otherwise: "all read NO_VECTOR")
        }
    }

    private func administration(_ log: CheckLog) {
        log.check("DEV-R-15", "queue reset register") {
            guard try registers.offeredFeatures().contains(.ringReset) else {
                return .notApplicable("RING_RESET is not offered")
            }
            guard registers.has(.queueReset) else {
                return .fail("the structure has no such field")
            }
            for queue in try registers.queues() {
                try registers.select(queue)
                let value = try registers.read(.queueReset)
                if value != 0 { return .fail("queue \(queue): \(value)") }
            }
            return .pass("0 for all queues")
        }
        log.check("DEV-R-16", "admin queues") {
            guard try registers.offeredFeatures().contains(.adminQueue) else {
                return .notApplicable("ADMIN_VQ is not offered")
            }
            guard registers.has(.adminQueueCount) else {
                return .fail("the structure has no such fields")
            }
            let first = try registers.read(.adminQueueIndex)
            let count = try registers.read(.adminQueueCount)
            let queues = try registers.read(.queueCount)
            return .expect(
                count > 0 && first >= queues && first + count <= 65536,
                "\(count) from \(first), behind \(queues) queues"
            )
        }
    }
}
