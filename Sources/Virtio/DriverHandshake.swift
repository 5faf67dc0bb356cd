public import VirtioSpec

/// Brings a device from reset to DRIVER_OK (virtio 1.3 §3.1.1), over any transport.
public enum DriverHandshake {
    /// Runs the whole sequence and returns the negotiated features.
    ///
    /// Taken are VERSION_1, `required`, and those of `wanted` that the device offers; what else the
    /// device offers is left alone (HI-A49). `queues` sets the queues up between FEATURES_OK and
    /// DRIVER_OK, and posts the buffers that have to be there from the start. Whatever goes wrong,
    /// FAILED is written before the error is thrown, unless the device is gone.
    public static func run(
        _ transport: any VirtioTransport,
        wanted: FeatureBits,
        required: FeatureBits = [],
        queues: (FeatureBits) throws(VirtioError) -> Void
    ) throws(VirtioError) -> FeatureBits {
        try transport.reset()
        var status: DeviceStatus = .acknowledge
        do {
            try transport.setStatus(status)
            status.insert(.driver)
            try transport.setStatus(status)
            let features = try negotiate(transport, wanted, required.union(.version1), &status)
            try queues(features)
            status.insert(.driverOK)
            try transport.setStatus(status)
            _ = try transport.requireHealthy()
            return features
        } catch {
            if case .deviceGone = error { throw error }
            do {
                try transport.setStatus(status.union(.failed))
            } catch {
                // The first error says more.
            }
            throw error
        }
    }

    private static func negotiate(
        _ transport: any VirtioTransport,
        _ wanted: FeatureBits,
        _ required: FeatureBits,
        _ status: inout DeviceStatus
    ) throws(VirtioError) -> FeatureBits {
        let offered = try transport.deviceFeatures()
        guard offered.isSuperset(of: required) else {
            throw .features(offered: offered, wanted: required)
        }
        let chosen = offered.intersection(wanted.union(required))
        try transport.setDriverFeatures(chosen)
        try transport.setStatus(status.union(.featuresOK))
        guard try transport.status().contains(.featuresOK) else {
            throw .features(offered: offered, wanted: chosen)
        }
        status.insert(.featuresOK)
        return chosen
    }
}

extension VirtioTransport {
    /// Reads the status and throws `needsReset` when the device has given up (HI-A48); `deviceGone`
    /// when it has vanished (VPN-M-18).
    @discardableResult
    public func requireHealthy() throws(VirtioError) -> DeviceStatus {
        let status = try status()
        guard status.rawValue != 0xff else { throw .deviceGone }
        guard !status.contains(.needsReset) else { throw .needsReset(status) }
        return status
    }
}
