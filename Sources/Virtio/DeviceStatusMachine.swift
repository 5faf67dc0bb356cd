public import VirtioSpec

/// The device status byte as a device keeps it (virtio 1.3 §2.1): which writes are obeyed, which
/// refused, and what has to follow.
///
/// A value without side effects; a presentation of a device owns one and acts on the outcomes.
public struct DeviceStatusMachine: Sendable, Equatable {
    /// What a write means for the device.
    public enum Outcome: Sendable, Equatable {
        /// The bits are set, or nothing changed.
        case updated
        /// DRIVER_OK was set now: start the device.
        case start
        /// 0 was written: stop the device, then call `completeReset`.
        case reset
        /// FEATURES_OK was not set, because the features cannot be served.
        case featuresRefused
        /// A bit that was set stays set, or a step came too early (HI-H12).
        case refused
    }

    /// The byte as the driver reads it.
    public private(set) var status: DeviceStatus = []

    /// Bits that a driver sets.
    private static let driverOwned: DeviceStatus = [
        .acknowledge, .driver, .featuresOK, .driverOK, .failed,
    ]

    /// Starts in the state after reset.
    public init() {}

    /// The device works on its queues.
    public var isRunning: Bool {
        status.contains(.driverOK) && status.isDisjoint(with: [.needsReset, .failed])
    }

    /// Takes a write by the driver. `acceptsFeatures` is asked when FEATURES_OK is to be set.
    ///
    /// Bits of the device and unknown bits are ignored (AVQ-D-312).
    public mutating func write(
        _ value: DeviceStatus,
        acceptsFeatures: () -> Bool
    ) -> Outcome {
        if value.rawValue == 0 { return .reset }
        let wanted = value.intersection(Self.driverOwned)
        let held = status.intersection(Self.driverOwned)
        guard wanted.isSuperset(of: held) else { return .refused }
        var added = wanted.subtracting(held)
        var outcome = Outcome.updated
        if !status.isDisjoint(with: [.failed, .needsReset]),
            !added.isSubset(of: [.acknowledge, .driver, .failed])
        {
            added.subtract([.featuresOK, .driverOK])
            outcome = .refused
        }
        if added.contains(.driverOK) {
            // A driver that did not look whether FEATURES_OK stayed does not get to run.
            if held.contains(.featuresOK) {
                outcome = .start
            } else {
                added.remove(.driverOK)
                outcome = .refused
            }
        }
        if added.contains(.featuresOK) {
            if !wanted.contains(.driver) {
                added.remove(.featuresOK)
                outcome = .refused
            } else if !acceptsFeatures() {
                added.remove(.featuresOK)
                outcome = .featuresRefused
            }
        }
        if added.contains(.failed), outcome == .start {
            added.remove(.driverOK)
            outcome = .updated
        }
        status.formUnion(added)
        return outcome
    }

    /// Nothing touches the driver's memory any more: the status reads 0 from now on (HI-H13).
    public mutating func completeReset() {
        status = []
    }

    /// The device cannot go on. True when the driver has to be told, that is once, and only after
    /// DRIVER_OK. `mmuFault` also sets the bit of a failed translation (AVQ-D-219).
    public mutating func demandReset(mmuFault: Bool = false) -> Bool {
        let isFirst = !status.contains(.needsReset)
        status.insert(.needsReset)
        if mmuFault { status.insert(.mmuFail) }
        return isFirst && status.contains(.driverOK)
    }
}
