/// A device's configuration bytes together with their generation (virtio 1.3 §2.5).
///
/// Devices change their bytes without a word; every read here compares them with what was seen
/// last and counts the generation up when they differ. So a driver that reads the generation before
/// and after its fields learns of every change between, even of one that was taken back.
public struct ConfigurationSpace: Sendable, Equatable {
    /// The generation that belongs to the bytes seen last.
    public private(set) var generation: UInt8 = 0
    private var seen: [UInt8]

    /// Starts with the bytes that a device has now.
    public init(_ bytes: [UInt8] = []) {
        seen = bytes
    }

    /// Takes note of the bytes that the device has now and returns their generation.
    @discardableResult
    public mutating func observe(_ bytes: [UInt8]) -> UInt8 {
        if bytes != seen {
            seen = bytes
            generation &+= 1
        }
        return generation
    }

    /// Takes note of the bytes and returns one of them; past the end is 0 (HI-H22).
    public mutating func byte(_ offset: Int, of bytes: [UInt8]) -> UInt8 {
        observe(bytes)
        return bytes.indices.contains(offset) ? bytes[offset] : 0
    }
}
