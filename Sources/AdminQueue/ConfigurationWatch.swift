/// The configuration generation: a number that differs from the one last read whenever the bytes
/// changed since (AVQ-D-313, virtio 1.3 §2.5).
///
/// Device types compute their configuration when asked, so the watch compares at every reading
/// instead of relying on being told.
struct ConfigurationWatch: Equatable, Sendable {
    private var seen: [UInt8]?
    private var generation: UInt32 = 0

    /// Starts with nothing read.
    init() {}

    /// The generation that belongs to `bytes`, which are being read now.
    mutating func generation(of bytes: [UInt8]) -> UInt32 {
        if let seen, seen != bytes { generation &+= 1 }
        seen = bytes
        return generation
    }
}
