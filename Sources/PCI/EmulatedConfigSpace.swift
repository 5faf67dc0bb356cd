/// The 256 bytes of an emulated function's configuration space: a value, and a mask that says which
/// of its bits a write can change (HI-H3).
public struct EmulatedConfigSpace: Sendable {
    /// Length in bytes.
    public static let length = 256

    private var bytes: [UInt8]
    private var writable: [UInt8]
    private var initial: [UInt8]
    private var bars: [BaseAddressRegister?]
    private var lastCapability: Int?
    private var freeOffset = ConfigurationHeader.length

    /// Bit 3 of the status register: an INTx interrupt is pending.
    public var isInterruptPending = false

    /// Makes a space without BARs and capabilities.
    public init(_ identity: PCIIdentity) {
        bytes = [UInt8](repeating: 0, count: Self.length)
        writable = bytes
        initial = bytes
        bars = [BaseAddressRegister?](
            repeating: nil,
            count: ConfigurationHeader.baseAddressCount
        )
        set(ConfigurationHeader.vendor, UInt32(identity.vendor), 2)
        set(ConfigurationHeader.device, UInt32(identity.device), 2)
        set(ConfigurationHeader.subsystemVendor, UInt32(identity.subsystemVendor), 2)
        set(ConfigurationHeader.subsystem, UInt32(identity.subsystem), 2)
        set(ConfigurationHeader.revision, UInt32(identity.revision), 1)
        set(ConfigurationHeader.classCode, identity.classCode, 3)
        allow(
            ConfigurationHeader.command,
            UInt32(
                CommandRegister([.memorySpace, .busMaster, .interruptDisable]).rawValue
            ),
            2
        )
        allow(ConfigurationHeader.interruptLine, 0xff, 1)
        initial = bytes
    }

    /// Places a BAR; one with 64-bit addresses takes the next register as well.
    public mutating func setBAR(_ bar: Int, _ register: BaseAddressRegister) {
        precondition(
            bar >= 0 && bar + (register.is64Bit ? 1 : 0) < bars.count,
            "there is no BAR \(bar) of that width"
        )
        bars[bar] = register
        let at = ConfigurationHeader.baseAddress(bar)
        set(at, register.typeBits, 4)
        allow(at, UInt32(truncatingIfNeeded: register.addressMask), 4)
        if register.is64Bit {
            allow(at + 4, UInt32(truncatingIfNeeded: register.addressMask >> 32), 4)
        }
        initial = bytes
    }

    /// A BAR's description, `nil` when it is absent.
    public func bar(_ bar: Int) -> BaseAddressRegister? {
        bars.indices.contains(bar) ? bars[bar] : nil
    }

    /// Appends a capability to the list and returns its offset, `nil` when there is no room.
    ///
    /// `capability` starts with the id; its second byte is overwritten by the list. `writable` has
    /// the bits that writes can change, from the first byte of the capability on.
    public mutating func addCapability(
        _ capability: [UInt8],
        writable mask: [UInt8] = []
    ) -> Int? {
        let at = (freeOffset + 3) & ~3
        guard capability.count >= 2, mask.count <= capability.count,
            at + capability.count <= Self.length
        else { return nil }
        bytes.replaceSubrange(at..<(at + capability.count), with: capability)
        writable.replaceSubrange(at..<(at + mask.count), with: mask)
        bytes[at + 1] = 0
        set(lastCapability.map { $0 + 1 } ?? ConfigurationHeader.capabilities, UInt32(at), 1)
        bytes[ConfigurationHeader.status] |= 1 << 4
        lastCapability = at
        freeOffset = at + capability.count
        initial = bytes
        return at
    }

    /// The command register.
    public var command: CommandRegister {
        CommandRegister(rawValue: UInt16(truncatingIfNeeded: get(ConfigurationHeader.command, 2)))
    }

    /// Reads; bytes past the end are ones (HI-H1).
    public func read(_ offset: Int, _ width: AccessWidth) -> UInt32 {
        get(offset, width.rawValue)
    }

    /// Writes the writable bits; bytes past the end are ignored (HI-H1).
    public mutating func write(_ offset: Int, _ width: AccessWidth, _ value: UInt32) {
        for index in 0..<width.rawValue {
            let at = offset &+ index
            guard bytes.indices.contains(at) else { continue }
            let byte = UInt8(truncatingIfNeeded: value >> UInt32(8 * index))
            bytes[at] = (bytes[at] & ~writable[at]) | (byte & writable[at])
        }
    }

    /// Back to the state after power-on.
    public mutating func reset() {
        bytes = initial
        isInterruptPending = false
    }

    /// Changes bytes whatever their mask: for registers that the function itself writes.
    mutating public func set(_ offset: Int, _ value: UInt32, _ count: Int) {
        for index in 0..<count {
            bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt32(8 * index))
        }
    }

    private mutating func allow(_ offset: Int, _ mask: UInt32, _ count: Int) {
        for index in 0..<count {
            writable[offset + index] = UInt8(truncatingIfNeeded: mask >> UInt32(8 * index))
        }
    }

    private func get(_ offset: Int, _ count: Int) -> UInt32 {
        var value: UInt32 = 0
        for index in 0..<count {
            let at = offset &+ index
            value |= UInt32(byte(at)) << UInt32(8 * index)
        }
        return value
    }

    private func byte(_ offset: Int) -> UInt8 {
        guard bytes.indices.contains(offset) else { return 0xff }
        let pending: UInt8 = offset == ConfigurationHeader.status && isInterruptPending ? 1 << 3 : 0
        return bytes[offset] | pending
    }
}
