internal import Glibc
internal import HostSystem
internal import PCI
internal import VirtioSpec

/// The common configuration without a driver's caution: what stands there is what is judged.
final class DeviceRegisters {
    /// Longest wait for a reset, in milliseconds (HI-A50).
    static let resetMilliseconds: UInt64 = 2000

    let function: any PCIFunction
    let common: VirtioCapability

    init?(_ function: any PCIFunction, _ structures: FoundStructures) {
        guard let common = structures.first(.common),
            common.length >= UInt64(CommonConfiguration.leastLength)
        else { return nil }
        self.function = function
        self.common = common
    }

    func read(_ register: CommonConfiguration) throws -> UInt32 {
        try function.readRegister(
            Int(common.bar),
            common.offset + UInt64(register.offset),
            AccessWidth(rawValue: register.width) ?? .byte
        )
    }

    func write(_ register: CommonConfiguration, _ value: UInt32) throws {
        try function.writeRegister(
            Int(common.bar),
            common.offset + UInt64(register.offset),
            AccessWidth(rawValue: register.width) ?? .byte,
            value
        )
    }

    /// The structure has the register.
    func has(_ register: CommonConfiguration) -> Bool {
        common.length >= UInt64(register.offset + register.width)
    }

    func status() throws -> DeviceStatus {
        DeviceStatus(rawValue: UInt8(truncatingIfNeeded: try read(.deviceStatus)))
    }

    func setStatus(_ status: DeviceStatus) throws {
        try write(.deviceStatus, UInt32(status.rawValue))
    }

    /// Resets the device; how long it took in microseconds, `nil` when it did not end in time.
    func reset() throws -> UInt64? {
        let start = MonotonicClock.now
        try setStatus([])
        let deadline = Deadline(milliseconds: Self.resetMilliseconds)
        while try status() != [] {
            guard !deadline.hasPassed else { return nil }
            usleep(100)
        }
        return (MonotonicClock.now - start) / 1000
    }

    func offeredFeatures() throws -> FeatureBits {
        var value: UInt64 = 0
        for word in UInt32(0)..<2 {
            try write(.deviceFeatureSelect, word)
            value |= UInt64(try read(.deviceFeature)) << (32 * UInt64(word))
        }
        return FeatureBits(rawValue: value)
    }

    func setFeatures(_ features: FeatureBits) throws {
        for word in UInt32(0)..<2 {
            try write(.driverFeatureSelect, word)
            let half = features.rawValue >> (32 * UInt64(word))
            try write(.driverFeature, UInt32(truncatingIfNeeded: half))
        }
    }

    func driverFeatures() throws -> FeatureBits {
        var value: UInt64 = 0
        for word in UInt32(0)..<2 {
            try write(.driverFeatureSelect, word)
            value |= UInt64(try read(.driverFeature)) << (32 * UInt64(word))
        }
        return FeatureBits(rawValue: value)
    }

    /// From reset to FEATURES_OK with these features; true when the device kept FEATURES_OK.
    /// Throws when the device does not come out of reset: nothing may be written to it then.
    func negotiate(_ features: FeatureBits) throws -> Bool {
        guard try reset() != nil else { throw CheckProblem.notReset }
        try setStatus(.acknowledge)
        try setStatus([.acknowledge, .driver])
        try setFeatures(features)
        try setStatus([.acknowledge, .driver, .featuresOK])
        return try status().contains(.featuresOK)
    }

    /// The features without which some devices refuse to work at all.
    func leastFeatures() throws -> FeatureBits {
        try offeredFeatures().intersection([.version1, .accessPlatform])
    }

    func select(_ queue: Int) throws {
        try write(.queueSelect, UInt32(truncatingIfNeeded: queue))
    }

    /// Brings the device to where queues are set up, between FEATURES_OK and DRIVER_OK (virtio 1.3
    /// §3.1.1), and selects the first queue that has a size; `nil` when none has. Some devices have
    /// queues only with a feature of theirs: all offered ones are taken where the least are too few.
    func prepareQueue() throws -> Int? {
        for features in [try leastFeatures(), try offeredFeatures()] {
            guard try negotiate(features) else { continue }
            for queue in try queues() {
                try select(queue)
                if try read(.queueSize) > 0 { return queue }
            }
        }
        return nil
    }

    /// The queues the checks look at: a device with a thousand is not read a thousand times.
    func queues() throws -> Range<Int> {
        0..<min(64, Int(try read(.queueCount)))
    }
}

/// Polls until the condition holds; false at the limit.
func waits(milliseconds: UInt64, until condition: () throws -> Bool) rethrows -> Bool {
    let deadline = Deadline(milliseconds: milliseconds)
    while try !condition() {
        if deadline.hasPassed { return try condition() }
        usleep(50)
    }
    return true
}

/// A number as it stands in a register.
func hex(_ value: some BinaryInteger) -> String { "0x" + String(value, radix: 16) }
