/// The ports that a worker serves now: rebuilt between turns, never changed inside one.
@unsafe
struct PortList: BitwiseCopyable {
    /// Attached ports, densely.
    let ports: UnsafeMutablePointer<UnsafeMutablePointer<PortState>>
    /// Number of them.
    let count: Int
    /// Every slot of the engine: its port, or nil.
    let bySlot: UnsafeMutablePointer<UnsafeMutablePointer<PortState>?>
}
